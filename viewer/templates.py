"""Templates of pages: HTML in files beside the code that fills them. What is put into one is escaped, whoever wrote it."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_HERE = Path(__file__).parent
STYLES = (_HERE / "page/theme.css", _HERE / "page/code.css")
"""Style sheets of every page: colours, fonts and controls; code in colours."""


def render(template: Path, **values: object) -> Markup:
    """One template, filled.

    Args:
        template: May extend `static_page.html` and import `parts.html` of this room.
        values: By the names that it has for them; a name without a value is an error.
    """
    return Markup(_environment(template.parent).get_template(template.name).render(values))  # noqa: S704 - escaped by then


def link_to(target: Path, page: Path) -> str:
    """The address of a file in a page, which holds as long as both are moved together; empty if there is no such file."""
    return quote(os.path.relpath(target, page.parent)) if target.exists() else ""


@functools.cache
def _environment(folder: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader([folder, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
