"""Published numbers beside a run's own, never without what makes them differ."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Published:
    """One number of a paper."""

    model: str
    tools: str
    where: str
    score: float
    """In percent, or in points."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Model:
    name: str
    tools: str
    paper: str
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Content:
    """What published.yaml holds."""

    models: tuple[_Model, ...]
    warnings: Mapping[str, str]
    """By benchmark."""
    general: str


@functools.cache
def _content() -> _Content:
    text = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
    return TypeAdapter(_Content).validate_python(yaml.safe_load(text))


def published(benchmark: str) -> list[Published]:
    """What is published for a benchmark; Lite has no number of its own."""
    return [
        Published(model.name, model.tools, model.paper, model.scores[benchmark])
        for model in _content().models
        if benchmark in model.scores
    ]


def warnings_for(benchmark: str) -> list[str]:
    """What must be said beside them."""
    content = _content()
    own = content.warnings.get(benchmark)
    return ([own] if own else []) + [content.general.strip()]
