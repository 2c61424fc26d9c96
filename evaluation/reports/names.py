"""What models are called on pages, where the whole path of a folder has no room."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath


def short_names(models: Iterable[str]) -> dict[str, str]:
    """Each model's name or folder -> as many of its last parts as tell it from the others."""
    parts = {model: PurePath(model).parts for model in models}

    def end(model: str, length: int) -> str:
        return "/".join(parts[model][-length:]).lstrip("/")

    found = {}
    for model in parts:
        others = [other for other in parts if parts[other] != parts[model]]
        lengths = range(1, len(parts[model]) + 1)
        told = (end(model, length) for length in lengths if end(model, length) not in {end(one, length) for one in others})
        found[model] = next(told, model)
    return found
