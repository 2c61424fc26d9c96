"""Families of synthetic tasks: as many questions as wanted, exact answers, and a label that says whether a tool is needed.

One file a family: `data/families/<name>.py` with `FAMILY`. The label is computed from the question, never guessed: each file
says by which rule. `write_family` of `_files.py` writes a family's training data and its benchmark; data/README.md says
where they go. Version, seed, level and shares give the same bytes every time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from agent.loading import load_plugin, plugin_names
from agent.protocol import PYTHON
from agent.search import WebResult

LEVELS = (1, 2, 3)
"""The difficulties that every family knows, easy ones first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One use of a tool in a demonstration."""

    thought: str
    """What is thought before it; its braces are left as they are."""
    name: str = PYTHON
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of `python` it is `code`, else the JSON of the tool call."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question of a family."""

    image: Image.Image | None
    """RGB; None is a question without one."""
    text: str
    """As the user puts it, without a prompt's reminder."""
    answer: str
    kind: str
    """`direct` where no tool is needed; else what is: `crop`, `code`, `search`, `both` or `image`."""
    calls: Sequence[Call]
    """What leads to the answer with certainty."""
    others: Sequence[str]
    """Answers as likely as the right one to somebody who uses no tool where one is needed; the right one among them."""

    @property
    def tool_needed(self) -> bool:
        """The label."""
        return self.kind != DIRECT


DIRECT = "direct"


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a family's file offers."""

    name: str
    title: str
    draw: Callable[[random.Random, int, str], Question]
    """(generator, level, split of `SPLITS`) -> a question."""
    version: int = 1
    """Raised with every change that makes other questions or files of the same seed."""
    tools: tuple[str, ...] = (PYTHON,)
    num_replies: int = 2
    """Replies of the longest demonstration."""
    pages: Callable[[int], list[WebResult]] | None = None
    """level -> what its local search index holds."""
    pictures: Callable[[int], list[tuple[str, Image.Image]]] | None = None
    """level -> (title, image) of each file of its image folder."""


SPLITS = ("sft", "rl_train", "benchmark")
"""The cold start's conversations, RL's rows, and what is held out."""


def family_names() -> list[str]:
    """Families on disk."""
    return plugin_names(__name__)


def load_family(name: str) -> Family:
    """Find a family by its name.

    Raises:
        LookupError: There is none; the message lists those that are.
    """
    if name not in family_names():
        raise LookupError(f"no family {name!r}; there are: {', '.join(family_names())}")
    family: Family = load_plugin(__name__, name).FAMILY
    return family
