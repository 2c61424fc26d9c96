"""What models were asked and what it cost, read from the journals."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from curation.journal import entries
from curation.settings import Curation


def spent_by_model(curation: Curation) -> dict[str, dict[str, Any]]:
    """Calls, tokens and money by the models' names in the file, over all processes and repetitions."""
    spent: dict[str, dict[str, float]] = defaultdict(
        lambda: {"answers": 0, "calls": 0, "prompt_tokens": 0, "reply_tokens": 0}
    )
    for journal in sorted(curation.directory.glob("*/journal")):
        for entry in entries(journal):
            spent[str(entry.get("model", ""))]["answers"] += 1
            for name in ("calls", "prompt_tokens", "reply_tokens"):
                spent[str(entry.get("model", ""))][name] += entry.get(name, 0)
    return {
        name: {
            "model": settings.model,
            **{what: int(number) for what, number in spent[name].items()},
            "usd": round(settings.usd(int(spent[name]["prompt_tokens"]), int(spent[name]["reply_tokens"])), 4),
        }
        for name, settings in curation.file.models.items()
    }
