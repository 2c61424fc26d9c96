"""The page of the API: its routes, with the schemas of what they read and answer. It loads nothing and runs nothing."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template


def api_page(openapi: dict[str, Any]) -> str:
    """The page of a schema, as `FastAPI.openapi` gives it."""
    return _template().render(openapi=openapi)


@functools.cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
