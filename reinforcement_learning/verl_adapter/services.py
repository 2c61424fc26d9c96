"""What the episodes of one rollout worker share: sandbox, search, judge, recorder."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.images import ImageFile
from agent.loading import load_plugin
from agent.search import ImageSearchProvider, SearchProvider
from agent.tools import Tool, ToolContext, build_tools
from agent.trajectory import TrajectoryWriter
from code_sandbox.client import SandboxClient
from judge.client import Judge, JudgeSettings
from reinforcement_learning.settings import AgentSettings


def load_provider(package: str, block: dict[str, Any] | None) -> Any:
    """Build a search provider from its block, or None from None."""
    if block is None:
        return None
    settings = dict(block)
    module = load_plugin(package, settings.pop("provider", ""))
    return module.Provider(module.Settings(**settings))


@dataclass(frozen=True, slots=True)
class Services:
    """Built once per worker process."""

    settings: AgentSettings
    sandbox: SandboxClient | None
    search: SearchProvider | None
    image_search: ImageSearchProvider | None
    judge: Judge
    recorder: TrajectoryWriter | None

    def tools(self, images: tuple[ImageFile, ...], item_id: str) -> dict[str, Tool]:
        """One episode's tools."""
        context = ToolContext(
            images=images,
            item_id=item_id,
            sandbox=self.sandbox,
            search=self.search,
            image_search=self.image_search,
            python_timeout_s=self.settings.python_timeout_s,
            max_hits=self.settings.max_hits,
        )
        return build_tools(self.settings.tools, context)


@functools.cache
def services(settings_path: str) -> Services:
    """The services of this process, opened at first use."""
    settings = AgentSettings.model_validate(json.loads(Path(settings_path).read_text(encoding="utf-8")))
    judge = settings.judge
    return Services(
        settings=settings,
        sandbox=SandboxClient(list(settings.sandbox_urls), max_in_flight=settings.max_sandbox_calls)
        if "python" in settings.tools
        else None,
        search=load_provider("agent.search", settings.search),
        image_search=load_provider("agent.search", settings.image_search),
        judge=Judge(
            JudgeSettings(
                base_urls=judge.base_urls,
                model=judge.model,
                prompt=judge.prompt,
                strict_rules=judge.strict_rules,
                timeout_s=judge.timeout_s,
                max_in_flight=judge.max_in_flight,
            )
        ),
        recorder=TrajectoryWriter(Path(settings.record_directory)) if settings.record_directory else None,
    )
