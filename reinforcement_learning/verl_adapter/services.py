"""What the episodes of one rollout worker share: the agent's set-up, judge, recorder."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.images import ImageRule
from agent.record_images import IN_DATA, IN_RUN
from agent.recorder import Recorder
from agent.search.gateway import Search
from agent.setup import AgentSetup, open_setup
from judge.client import Judge
from reinforcement_learning.outages import SandboxGate, ScoringGate
from reinforcement_learning.settings import RolloutSettings

SETTINGS_VARIABLE = "DEEPEYES_AGENT_SETTINGS"


class Lookups:
    """What the episodes of this process asked of judge and search, and how much of that a cache knew.

    The sources count for the process, not for an episode: whichever rollout ends next carries what came in between to the
    trainer, where only the sum of a step is looked at.
    """

    def __init__(self, judge: Judge, searches: Sequence[Search | None]) -> None:
        self._judge, self._searches = judge, [search for search in searches if search is not None]
        self._told: Counter[str] = Counter()

    def take(self) -> dict[str, int]:
        """New ones of `judge`, `judge_hits`, `search`, `search_hits`; hits are also what was being asked already."""
        found: Counter[str] = Counter(judge_hits=self._judge.counters["from_cache"])
        found["judge"] = sum(count for name, count in self._judge.counters.items() if name.startswith("judge:"))
        for search in self._searches:
            counters = Counter(search.counters)
            found["search"] += counters["asked"]
            found["search_hits"] += sum(counters[name] for name in ("from_recording", "from_shared_cache", "coalesced"))
        new, self._told = found - self._told, found
        return dict(new)


@dataclass(frozen=True, slots=True)
class Services:
    """Built once per worker process."""

    settings: RolloutSettings
    setup: AgentSetup
    judge: Judge
    gate: ScoringGate
    sandbox_gate: SandboxGate
    lookups: Lookups


def announce(text: str) -> None:
    """Ray carries a worker's standard error to the terminal of the run; the worker's own logging is set up by others."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


@functools.cache
def read_settings(settings_path: str) -> RolloutSettings:
    """What the launcher wrote for the workers, or handed them where there are passwords among it."""
    text = os.environ.get("DEEPEYES_AGENT_SETTINGS") or Path(settings_path).read_text(encoding="utf-8")
    return RolloutSettings.model_validate(json.loads(text))


@functools.cache
def recorder(settings_path: str) -> Recorder | None:
    """The recorder of this process; None if nothing is recorded. Needs no other service, so that their loss is recorded."""
    settings = read_settings(settings_path)
    if settings.record_directory is None or not settings.record.enabled:
        return None
    run_store, images = os.environ.get("DEEPEYES_IMAGE_STORE"), settings.record.images
    return Recorder(
        Path(settings.record_directory),
        settings.record,
        run_store=Path(run_store) if run_store else None,
        store=None if images in (IN_DATA, IN_RUN) else Path(images),  # the launcher has said which store it is
        announce=announce,
    )


@functools.cache
def services(settings_path: str, image_rule: ImageRule) -> Services:
    """The services of this process, opened at first use.

    Args:
        settings_path: What the launcher wrote.
        image_rule: What the model sees of an image.
    """
    settings = read_settings(settings_path)
    judge = Judge(settings.judge)
    setup = open_setup(settings, image_rule=image_rule)
    return Services(
        settings=settings,
        setup=setup,
        judge=judge,
        gate=ScoringGate(judge, settings.judge_outage, announce),
        sandbox_gate=SandboxGate(setup.sandbox, settings.sandbox_outage, announce),
        lookups=Lookups(judge, (setup.search, setup.image_search)),
    )
