"""Published numbers beside a run's own, never without what makes them differ."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, slots=True)
class Published:
    """One number of a paper."""

    model: str
    tools: str
    where: str
    score: float
    """In percent, or in points."""


@functools.cache
def _content() -> Mapping[str, Any]:
    content: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return content


def published(benchmark: str) -> list[Published]:
    """What is published for a benchmark; Lite has no number of its own."""
    rows = []
    for model in _content()["models"]:
        if benchmark in model["scores"]:
            rows.append(Published(model["name"], model["tools"], model["paper"], float(model["scores"][benchmark])))
    return rows


def warnings_for(benchmark: str) -> list[str]:
    """What must be said beside them."""
    content = _content()
    own = content["warnings"].get(benchmark)
    return ([own] if own else []) + [content["general"].strip()]
