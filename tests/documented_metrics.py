"""The metrics that docs/metrics.md explains."""

import re

from tests.conftest import ROOT

_ROW = re.compile(r"^\| (`.+?`) \| .+ \| .* \| (.*?)\|$", re.MULTILINE)


def documented() -> dict[str, bool]:
    """Name, with `<…>` for what differs -> whether every run writes it."""
    text = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    return {name: not when.strip() for names, when in _ROW.findall(text) for name in re.findall(r"`([^`]+)`", names)}


def pattern(name: str) -> re.Pattern[str]:
    """What a documented name stands for."""
    return re.compile("".join("[^/]+" if part.startswith("<") else re.escape(part) for part in re.split(r"(<[^>]+>)", name)))


def problems(written: set[str]) -> list[str]:
    """What a run wrote and the page does not explain, and what the page promises and the run did not write."""
    known = {name: pattern(name) for name in documented()}
    unexplained = [name for name in sorted(written) if not any(one.fullmatch(name) for one in known.values())]
    missing = [name for name, always in documented().items() if always and not any(map(known[name].fullmatch, written))]
    return [f"not explained: {name}" for name in unexplained] + [f"not written: {name}" for name in missing]
