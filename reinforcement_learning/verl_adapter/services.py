"""What the episodes of one rollout worker share: the agent's set-up, judge, recorder."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from agent.images import ImageRule
from agent.record_images import IN_DATA, IN_RUN
from agent.recorder import Recorder
from agent.setup import AgentSetup, open_setup
from judge.client import Judge
from reinforcement_learning.outages import SandboxGate, ScoringGate
from reinforcement_learning.settings import RolloutSettings

SETTINGS_VARIABLE = "DEEPEYES_AGENT_SETTINGS"


@dataclass(frozen=True, slots=True)
class Services:
    """Built once per worker process."""

    settings: RolloutSettings
    setup: AgentSetup
    judge: Judge
    gate: ScoringGate
    sandbox_gate: SandboxGate


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
    )
