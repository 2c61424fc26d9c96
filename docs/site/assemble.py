"""The pages of the site, from the Markdown of the repository: a hook of mkdocs (mkdocs.yml).

Nothing is written twice: READMEs of rooms, guides and tutorials are taken as they stand, at the places that they have in the
repository, so that their links to each other hold. A link to a file that is no page, such as a module, becomes its name.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_PLACES = {"README.md": "index.md", "README.zh-CN.md": "index.zh.md"}
_FILES = (".png", ".webp", ".svg", ".ipynb")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_MARK = re.compile("\0")
REFERENCE = {
    "agent": (
        "agent.setup", "agent.episode", "agent.settings", "agent.protocol", "agent.messages", "agent.images", "agent.policy",
        "agent.tools", "agent.errors", "agent.records", "agent.trajectory", "agent.openai_chat", "agent.testing",
        "agent.search",
    ),
    "judge": ("judge.client", "judge.verdict", "judge.rules"),
    "code_sandbox": ("code_sandbox.client", "code_sandbox.wire", "code_sandbox.errors", "code_sandbox.testing"),
    "evaluation": (
        "evaluation.benchmarks", "evaluation.scoring.grader", "evaluation.scoring.profiles", "evaluation.tables.tsv",
    ),
    "reinforcement_learning": (
        "reinforcement_learning.rewards", "reinforcement_learning.settings", "reinforcement_learning.rows",
        "reinforcement_learning.recipe",
    ),
}  # fmt: skip
"""Page of the reference -> modules whose docstrings it shows: what people extend, or call from programs of their own."""


def on_config(config: Any) -> Any:
    """Put the pages together in a folder of their own, which mkdocs then takes for its source."""
    folder = Path(tempfile.mkdtemp(prefix="deepeyes-docs-"))
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assemble(folder, files)
    config["docs_dir"] = str(folder)
    return config


def on_post_build(config: Any) -> None:
    """Remove what was put together."""
    shutil.rmtree(config["docs_dir"])


def assemble(folder: Path, files: list[str]) -> None:
    """Write the sources of all pages below a folder.

    Args:
        folder: Empty.
        files: Those of the repository, relative to its root.
    """
    pages = {name: _place(name) for name in files if name.endswith(".md") and not name.startswith("tests/")}
    taken = pages | {name: _place(name) for name in files if name.endswith(_FILES) and name.startswith("docs/")}
    for name, place in taken.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if name in pages:
            target.write_text(_relinked((ROOT / name).read_text(encoding="utf-8"), name, taken), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / name, target)
    for page, modules in REFERENCE.items():
        target = folder / "reference" / f"{page}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"# {page}\n\n" + "\n".join(f"::: {module}\n" for module in modules), encoding="utf-8")


def _place(name: str) -> str:
    """Where a file of the repository lies in the site."""
    if name in _PLACES:
        return _PLACES[name]
    name = name.removeprefix("docs/") if name.startswith("docs/tutorials/") else name
    return name.replace(".zh-CN.md", ".zh.md")


def _relinked(text: str, name: str, taken: dict[str, str]) -> str:
    """A page's text with links that hold in the site; code is left alone."""

    def link(match: re.Match[str]) -> str:
        mark, label, target = match.groups()
        path, hash_, anchor = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match[0]
        found = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        if found not in taken:
            return label
        # A page of either language is named without the language: the plugin finds the one of the reader's.
        place = taken[found].replace(".zh.md", ".md")
        return f"{mark}[{label}]({posixpath.relpath(place, posixpath.dirname(_place(name)) or '.')}{hash_}{anchor})"

    # Blocks of code are taken out first, and put back as they were.
    blocks = iter(_BLOCK.findall(text))
    return _MARK.sub(lambda _: next(blocks), _LINK.sub(link, _BLOCK.sub("\0", text)))
