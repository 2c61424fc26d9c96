"""What the episodes of one rollout worker share: sandbox, search, judge, recorder."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from agent.images import ImageFile
from agent.messages import Message
from agent.recorder import Recorder
from agent.scheduling import Slots
from agent.search.gateway import Search, open_search, pages_of
from agent.tools import Tool, ToolContext, build_tools
from code_sandbox.client import SandboxClient
from judge.client import Judge, JudgeSettings
from reinforcement_learning.opening import opening
from reinforcement_learning.outages import SandboxGate, ScoringGate
from reinforcement_learning.settings import AgentSettings


@dataclass(frozen=True, slots=True)
class Services:
    """Built once per worker process."""

    settings: AgentSettings
    sandbox: SandboxClient | None
    search: Search | None
    image_search: Search | None
    judge: Judge
    gate: ScoringGate
    sandbox_gate: SandboxGate
    slots: Slots

    def opening(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The row's messages; one without a system message gets the recipe's prompt, if it has one."""
        return opening(messages, self.settings)

    def tools(self, images: tuple[ImageFile, ...], item_id: str) -> dict[str, Tool]:
        """One episode's tools."""
        context = ToolContext(
            images=images,
            item_id=item_id,
            sandbox=self.sandbox,
            search=self.search,
            image_search=self.image_search,
            pages=pages_of(self.search),
            settings=self.settings.tool_settings,
        )
        return build_tools(self.settings.tools_on, context)


def announce(text: str) -> None:
    """Ray carries a worker's standard error to the terminal of the run; the worker's own logging is set up by others."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


@functools.cache
def read_settings(settings_path: str) -> AgentSettings:
    """What the launcher wrote for the workers."""
    return AgentSettings.model_validate(json.loads(Path(settings_path).read_text(encoding="utf-8")))


@functools.cache
def recorder(settings_path: str) -> Recorder | None:
    """The recorder of this process; None if nothing is recorded. Needs no other service, so that their loss is recorded."""
    settings = read_settings(settings_path)
    if settings.record_directory is None or not settings.record.enabled:
        return None
    store = os.environ.get("DEEPEYES_IMAGE_STORE")
    return Recorder(
        Path(settings.record_directory), settings.record, images=Path(store) if store else None, announce=announce
    )


@functools.cache
def services(settings_path: str) -> Services:
    """The services of this process, opened at first use."""
    settings = read_settings(settings_path)
    judge = Judge(JudgeSettings(**settings.judge.model_dump()))
    sandbox = None
    if "python" in settings.tools:
        sandbox = SandboxClient(list(settings.sandbox_urls), max_in_flight=settings.max_sandbox_calls)
    return Services(
        settings=settings,
        sandbox=sandbox,
        search=open_search(settings.search),
        image_search=open_search(settings.image_search),
        judge=judge,
        gate=ScoringGate(judge, settings.judge_outage, announce),
        sandbox_gate=SandboxGate(sandbox, settings.sandbox_outage, announce),
        slots=Slots(settings.max_in_flight),
    )
