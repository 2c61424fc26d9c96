"""Each row is answered k times by a model, without tools or with them, and how often it was right is counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field

from curation.asking import WantedAnswer
from curation.folders import StepOutcome
from curation.players import agent_of, answers, identity, play_all, wanted
from curation.settings import Name, Strict
from curation.work import Work


class SampleSettings(Strict):
    """Who is asked, how, and how often."""

    as_: Name = Field(alias="as")
    """Facts are called by it, such as `plain.right`: right, wrong, open, calls (of tools, on average) and k."""
    with_: Name = Field(alias="with")
    """A model of the file."""
    mode: Literal["think", "agent"]
    """`think`: one reply, no tools. `agent`: our loop, with sandbox and search."""
    k: int = Field(8, ge=1)
    tools: tuple[str, ...] | None = None
    """With `agent`; null are those of the file's `agent`."""
    max_reply_tokens: int | None = Field(None, ge=1)
    on: str | None = None
    """The part whose rows are asked; null is all."""

    @property
    def asks(self) -> tuple[str, ...]:
        """Models of the file."""
        return (self.with_,)

    @property
    def parts(self) -> tuple[str, ...]:
        """What has to be there."""
        return () if self.on is None else (self.on,)


SETTINGS = SampleSettings
CODE = ("curation.players", "curation.grading")


def _plan(work: Work) -> tuple[list[WantedAnswer], Any]:
    settings: SampleSettings = work.step.settings
    agent = agent_of(work, settings.mode, settings.tools, settings.max_reply_tokens)
    rows = [row for row in work.rows if settings.on in (None, row.part)]
    return wanted(work, rows, [settings.with_], settings.k, agent), agent


def key_of(work: Work) -> dict[str, Any]:
    """Who is asked, with what, and who judges."""
    settings: SampleSettings = work.step.settings
    return identity(work, [settings.with_], agent_of(work, settings.mode, settings.tools, settings.max_reply_tokens))


async def gather(work: Work) -> None:
    """Play what is missing, together with other processes.

    Raises:
        CurationStopped: A cap is reached, no server is left, or only outages come back.
    """
    asked, agent = _plan(work)
    await play_all(work, asked, agent, own_prompt=work.step.settings.mode == "agent")


async def apply(work: Work) -> StepOutcome:
    """Count."""
    asked, _ = _plan(work)
    found, label, kept, waiting = answers(work.folder, asked), work.step.settings.as_, [], 0
    notes: Counter[str] = Counter()
    for row in work.rows:
        if row.key not in found:
            kept.append(row)
            continue
        said = found[row.key]
        outcomes = Counter(str(entry["outcome"]) for entry in said)
        notes.update(outcomes)
        waiting += sum(not entry["done"] for entry in said)
        counts = {
            "right": outcomes["correct"],
            "wrong": outcomes["incorrect"],
            "open": len(said) - outcomes["correct"] - outcomes["incorrect"],
            "calls": round(sum(sum(entry.get("tools", {}).values()) for entry in said) / len(said), 3),
            "k": len(said),
        }
        kept.append(replace(row, facts={**row.facts, **{f"{label}.{name}": number for name, number in counts.items()}}))
    by_right = Counter(row.facts[f"{label}.right"] for row in kept if f"{label}.right" in row.facts)
    return StepOutcome(
        kept=kept, waiting=waiting, notes={"answers": dict(notes), "rows by right answers": dict(sorted(by_right.items()))}
    )
