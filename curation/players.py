"""Plays rows as episodes of our own loop, records each, and grades it as RL would."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.calls import is_placeholder
from agent.chat_formats import begins_replies, image_rule_for
from agent.episode import Episode
from agent.errors import ReplyWithheld
from agent.images import UnreadableImage
from agent.messages import messages_from_rows
from agent.openai_chat import ChatPolicy
from agent.protocol import PYTHON, ToolCall
from agent.record_images import RecordImages
from agent.records import RolloutFacts
from agent.settings import AgentSettings
from agent.setup import AgentSetup, open_setup, prompt_of, question
from agent.trajectory import TrajectoryWriter
from curation.asking import Endpoint, WantedAnswer, ask_all
from curation.grading import graded, judge_identity
from curation.journal import AnswerJournal
from curation.rows import CuratedRow, digest
from curation.spending import RunAccount
from curation.work import Work
from judge.client import Judge


def agent_of(work: Work, mode: str, tools: Sequence[str] | None, max_reply_tokens: int | None) -> AgentSettings:
    """The agent of a step: with tools as the file's `agent` has it, or one reply of thinking without any."""
    more: dict[str, Any] = {} if max_reply_tokens is None else {"max_reply_tokens": max_reply_tokens}
    if mode == "think":
        return work.curation.agent_settings(tools=(), prompt="think", primer="", max_turns=1, **more)
    return work.curation.agent_settings(**more, **({} if tools is None else {"tools": tuple(tools)}))


def identity(work: Work, names: Sequence[str], agent: AgentSettings) -> dict[str, Any]:
    """What decides how an episode goes and what it is called: models, agent, prompt, judge."""
    prompt = prompt_of(agent)
    return {
        "models": {name: work.curation.file.models[name].identity() for name in names},
        "agent": agent.model_dump(mode="json", exclude=set(AgentSettings.PLACES)),
        "prompt": "" if prompt is None else prompt.sha256,
        "judge": judge_identity(work.curation.file.judge),
    }


def wanted(work: Work, rows: Sequence[CuratedRow], names: Sequence[str], k: int, agent: AgentSettings) -> list[WantedAnswer]:
    """All episodes of a step, whether or not they were played."""
    found = []
    for name in names:
        decided = identity(work, [name], agent) | {"seed": work.curation.file.seed}
        base = digest(decided)
        for row in rows:
            content = digest([base, row.key, row.content()])
            found += [WantedAnswer(id=digest([content, n]), row=row, sample=n, model=name) for n in range(k)]
    return found


class Players:
    """What the episodes of a step share."""

    def __init__(self, work: Work, names: Sequence[str], agent: AgentSettings, *, own_prompt: bool) -> None:
        models = work.curation.file.models
        self._work, self._agent, self._own_prompt = work, agent, own_prompt
        self._account = RunAccount(work.curation)
        self.endpoints = {name: Endpoint(name, models[name], self._account) for name in names}
        self._setups = {name: _setup(endpoint, agent) for name, endpoint in self.endpoints.items()}
        self._judge = Judge(work.curation.file.judge)
        folder = work.folder / "episodes"
        images = RecordImages(folder, fanned=True, store=work.library.root)
        self._writer = TrajectoryWriter(folder, shared=True, images=images)

    async def play(self, asked: WantedAnswer) -> dict[str, Any]:
        """Play, record and grade one episode; its line for the journal."""
        row, setup = asked.row, self._setups[asked.model]
        endpoint = self.endpoints[asked.model]
        policy = ChatPolicy(
            endpoint.client,
            max_reply_tokens=self._agent.max_reply_tokens,
            primer=setup.primer,
            seed=self._work.curation.file.seed + asked.sample,
        )
        try:
            images = row.read_images(self._work.library)
            own = self._own_prompt and row.prompt[0]["role"] == "system"
            messages = messages_from_rows(row.prompt, images) if own else (question(row.question, images),)
            opening = await asyncio.to_thread(setup.opening, *messages)
        except (UnreadableImage, ValueError, OSError) as error:
            return {"done": True, "outcome": "undecided", "why": f"it cannot be shown: {error}"}
        episode = await setup.play(opening, policy, images=images, item_id=row.key)
        entry = _facts(episode)
        facts = RolloutFacts(
            item_id=row.key, source=row.data_source, category=row.group, gold=" or ".join(row.gold), sample=asked.sample
        )
        if episode.failed:
            self._writer.write(episode, facts)
            if episode.outage is not None and isinstance(episode.outage.error, ReplyWithheld):
                # Not ours to wait for: the same question is refused the next time, too.
                return entry | {"done": True, "outcome": "refused", "why": episode.failure}
            ends = episode.outage is not None and episode.outage.ends_run
            return entry | {"done": False, "outcome": "failed", "why": episode.failure, "ends_run": ends}
        found = await graded(row, episode, self._judge)
        self._writer.write(episode, facts)
        return entry | {"done": not found.outage, "outcome": str(found.outcome), "by": found.decided_by, "why": found.why}

    async def aclose(self) -> None:
        """Close connections and files."""
        for endpoint in self.endpoints.values():
            await endpoint.aclose()
        for setup in self._setups.values():
            await setup.aclose()
        await self._judge.aclose()
        self._account.close()


def _setup(endpoint: Endpoint, agent: AgentSettings) -> AgentSetup:
    settings = endpoint.settings
    rule = image_rule_for(settings.model, agent.image_max_pixels)
    can_prime = settings.dialect == "vllm" and not begins_replies(settings.model)
    return open_setup(agent, image_rule=rule, can_prime=can_prime)


def _facts(episode: Episode) -> dict[str, Any]:
    calls = [turn.action for turn in episode.turns if isinstance(turn.action, ToolCall)]
    codes = [str(call.arguments.get("code", "")) for call in calls if call.name == PYTHON]
    return {
        "episode_id": episode.episode_id,
        "answer": None if episode.answer is None else episode.answer[:300],
        "stop": str(episode.stop_reason),
        "tools": dict(Counter(call.name for call in calls)),
        "tool_errors": episode.tool_errors,
        "placeholder": any(map(is_placeholder, codes)),
        "calls": len(episode.turns),
        "prompt_tokens": sum(turn.reply.num_prompt_tokens for turn in episode.turns),
        "reply_tokens": episode.num_tokens,
    }


async def play_all(work: Work, asked: Sequence[WantedAnswer], agent: AgentSettings, *, own_prompt: bool) -> None:
    """Play what is missing.

    Raises:
        CurationStopped: A cap is reached, no server is left, or only outages come back.
    """
    journal = AnswerJournal(work.folder / "journal")
    try:
        if all(one.id in journal for one in asked):
            return
        names = list(dict.fromkeys(one.model for one in asked))
        players = Players(work, names, agent, own_prompt=own_prompt)
        try:
            await ask_all(asked, journal, players.endpoints, players.play)
        finally:
            await players.aclose()
    finally:
        journal.close()


def answers(folder: Path, asked: Sequence[WantedAnswer]) -> dict[str, list[Mapping[str, Any]]]:
    """Journal lines by row, in the order of samples; `failed` for what an outage still holds back."""
    journal = AnswerJournal(folder / "journal")
    found: dict[str, list[Mapping[str, Any]]] = {}
    try:
        for one in asked:
            missing = {"outcome": "failed", "done": False, "model": one.model}
            found.setdefault(one.row.key, []).append(journal.get(one.id) or missing)
    finally:
        journal.close()
    return found
