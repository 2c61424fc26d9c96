"""Teachers write trajectories: each call is really run, and kept is only what is right, without errors and no pretence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

from curation.asking import WantedAnswer
from curation.conversations import TRAJECTORIES
from curation.folders import OPEN, StepOutcome
from curation.players import agent_of, answers, identity, play_all, wanted
from curation.settings import Name, Strict
from curation.work import Work


class KeptTrajectories(Strict):
    """What a trajectory has to be."""

    right: bool = True
    tool_errors: int = Field(0, ge=0)
    """At most, of calls that the model was told had failed."""
    placeholder_code: bool = False
    """Whether code that does nothing may be in it."""
    min_calls: int = Field(0, ge=0)
    """Of tools."""

    def problem(self, entry: Mapping[str, Any]) -> str:
        """Why a trajectory is not kept; empty if it is."""
        if entry["outcome"] == "failed":
            return "an outage"
        if entry["outcome"] == "refused":
            return "refused by the teacher's server"
        if entry["outcome"] == "undecided":
            return "open"
        if entry["stop"] != "answered":
            return f"no answer ({entry['stop']})"
        if self.right and entry["outcome"] != "correct":
            return "wrong"
        if entry["tool_errors"] > self.tool_errors:
            return "tool errors"
        if entry["placeholder"] and not self.placeholder_code:
            return "placeholder code"
        return "too few calls" if sum(entry["tools"].values()) < self.min_calls else ""


class SynthesiseSettings(Strict):
    """Whose rows, by which teachers, and what is kept."""

    on: str = "cold"
    """The part; rows of others go on as they are."""
    with_: tuple[Name, ...] = Field(alias="with", min_length=1)
    k: int = Field(4, ge=1)
    """Of each teacher and row."""
    per_row: int = Field(1, ge=1)
    """Trajectories that are kept of a row, the first by teacher and sample."""
    tools: tuple[str, ...] | None = None
    max_reply_tokens: int | None = Field(None, ge=1)
    keep: KeptTrajectories = KeptTrajectories()

    @property
    def asks(self) -> tuple[str, ...]:
        """Models of the file."""
        return self.with_

    @property
    def parts(self) -> tuple[str, ...]:
        """What has to be there."""
        return (self.on,)


SETTINGS = SynthesiseSettings
CODE = ("curation.players", "curation.grading")


def _plan(work: Work) -> tuple[list[WantedAnswer], Any]:
    settings: SynthesiseSettings = work.step.settings
    agent = agent_of(work, "agent", settings.tools, settings.max_reply_tokens)
    rows = [row for row in work.rows if row.part == settings.on]
    return wanted(work, rows, settings.with_, settings.k, agent), agent


def key_of(work: Work) -> dict[str, Any]:
    """Who teaches, with what, and who judges."""
    settings: SynthesiseSettings = work.step.settings
    return identity(work, settings.with_, agent_of(work, "agent", settings.tools, settings.max_reply_tokens))


async def gather(work: Work) -> None:
    """Play what is missing, together with other processes.

    Raises:
        CurationStopped: A cap is reached, no server is left, or only outages come back.
    """
    asked, agent = _plan(work)
    if asked:
        await play_all(work, asked, agent, own_prompt=True)


async def apply(work: Work) -> StepOutcome:
    """Choose."""
    settings: SynthesiseSettings = work.step.settings
    found = answers(work.folder, _plan(work)[0])
    kept, dropped, waiting = [], [], 0
    notes: Counter[str] = Counter()
    for row in work.rows:
        if row.key not in found:
            kept.append(row)
            continue
        good, problems = [], Counter[str]()
        for entry in found[row.key]:
            waiting += not entry["done"]
            problem = settings.keep.problem(entry)
            problems[problem or "kept"] += 1
            if not problem:
                good.append({"step": work.step.folder, "episode_id": entry["episode_id"], "teacher": entry["model"]})
        notes.update(problems)
        if good:
            kept.append(replace(row, facts={**row.facts, TRAJECTORIES: good[: settings.per_row]}))
        else:
            said = ", ".join(f"{number} {problem}" for problem, number in problems.most_common())
            is_open = problems["an outage"] or problems["open"]
            dropped.append((row, f"{OPEN if is_open else ''}no trajectory: {said}"))
    return StepOutcome(kept=kept, dropped=dropped, waiting=waiting, notes={"trajectories": dict(notes)})
