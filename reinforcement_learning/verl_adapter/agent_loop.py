"""verl's agent loop -> `run_episode` -> tokens, mask, reward."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import asdict
from typing import Any
from uuid import uuid4

from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput

from agent.chat_formats import format_of
from agent.episode import Episode
from agent.errors import ContextFull, EpisodeFailure, PolicyUnavailable
from agent.images import ImageFile, ImageRule
from agent.messages import Message, messages_from_rows
from agent.protocol import STOP_STRINGS
from reinforcement_learning.metrics import episode_numbers
from reinforcement_learning.outages import Played
from reinforcement_learning.rewards import Reward, RewardItem, load_reward
from reinforcement_learning.rows import accepted_answers
from reinforcement_learning.verl_adapter.image_store import ImageRef, run_store
from reinforcement_learning.verl_adapter.images import ImageReferences, row_image
from reinforcement_learning.verl_adapter.rollouts import CURRENT, EpisodeFailed, RolloutSoFar, reason_of
from reinforcement_learning.verl_adapter.router import request_name
from reinforcement_learning.verl_adapter.services import read_settings, services
from reinforcement_learning.verl_adapter.token_policy import Sampled, TokenLimits, TokenPolicy

_ABORTED = ("aborted", "abort")
_NO_ROOM = "leaves no room to generate"
"""In the message of verl 0.9.1's vLLM server, for a model whose `max_model_len` the recipe leaves to the engine."""


class EpisodeAgentLoop(AgentLoopBase):
    """One rollout. verl makes a new object for each; `settings_path` comes from the agent-loop file."""

    def __init__(self, *args: Any, settings_path: str, hf_model_type: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, hf_model_type=hf_model_type, **kwargs)
        self._format = format_of(hf_model_type, str(self.tokenizer.chat_template or ""))
        own = None if self.processor is None else ImageRule.of_processor(self.processor.image_processor)
        rule = self._format.image_rule(read_settings(settings_path).image_max_pixels, own)
        self._services = services(settings_path, rule)
        self._extra_fields: dict[str, Any] = {}
        self._lookups: Counter[str] = Counter()
        """Tokens that the engine read, `prefix`, and those that it knew, `prefix_hits`."""

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **row: Any) -> AgentLoopOutput:
        """Roll out one row and score it. What is known of the rollout is left in `rollouts.CURRENT` for its record.

        Raises:
            EpisodeFailed: Our outage; never scored.
        """
        rollout = CURRENT.get() or RolloutSoFar()
        images = tuple([await asyncio.to_thread(row_image, run_store(), name) for name in row["image_names"]])
        self._assert_mm_supported(bool(images))
        item, judge_s = _item(row), 0.0
        rollout.item = item
        messages = messages_from_rows(row["raw_prompt"], images)
        opening = await asyncio.to_thread(self._services.setup.opening, *messages)
        played = await self._services.sandbox_gate.play(
            lambda: self._play(rollout, opening, images, item, sampling_params, priority, row), item_id=item.item_id
        )
        episode, rollout.restarts = played.episode, played.restarts
        if not episode.failed:
            began = time.monotonic()
            rollout.reward = await self._score(episode, item)
            judge_s = time.monotonic() - began
        else:
            rollout.reward = played.reward_in_spite(self._services.settings.sandbox_outage)
        if rollout.reward is None:
            raise EpisodeFailed(f"RepeatedOutage: {episode.failure}" if played.repeated_outage else episode.failure)
        if not self._played.buffer.response_ids:
            raise EpisodeFailed(f"NothingSampled: {episode.stop_reason.value} before the first token")
        return self._output(played, self._played, rollout.reward, item.data_source, judge_s)

    async def _play(
        self,
        rollout: RolloutSoFar,
        opening: tuple[Message, ...],
        images: tuple[ImageFile, ...],
        item: RewardItem,
        sampling_params: dict[str, Any],
        priority: int,
        row: dict[str, Any],
    ) -> Episode:
        """One attempt: a new policy, tools without a session."""
        self._extra_fields, self._lookups = {}, Counter()
        self._played = self._policy(sampling_params, priority, row)
        rollout.episode = await self._services.setup.play(opening, self._played, images=images, item_id=item.item_id)
        return rollout.episode

    def _policy(self, sampling_params: dict[str, Any], priority: int, row: dict[str, Any]) -> TokenPolicy:
        settings = self._services.settings
        request_id = request_name(str(row.get("uid", "")), uuid4().hex)
        sizer = ImageReferences(
            self.processor,
            step=int(row.get("global_steps", 0)),
            known=row["image_names"],
        )

        async def generate(
            token_ids: list[int], images: list[ImageRef], *, max_tokens: int, logit_bias: dict[int, float]
        ) -> Sampled:
            try:
                await sizer.store(run_store())
            except OSError as error:
                raise PolicyUnavailable(f"an image could not be stored for the engine: {reason_of(error)}") from error
            try:
                output = await self.server_manager.generate(
                    request_id=request_id,
                    prompt_ids=token_ids,
                    sampling_params={
                        **sampling_params,
                        "max_tokens": max_tokens,
                        "stop": list(STOP_STRINGS),
                        "include_stop_str_in_output": True,
                        "logit_bias": logit_bias,
                    },
                    image_data=images or None,
                    priority=priority,
                )
            except Exception as error:
                if _NO_ROOM in str(error):
                    raise ContextFull(reason_of(error)) from error
                raise PolicyUnavailable(f"the engine failed: {reason_of(error)}") from error
            if output.stop_reason in _ABORTED:
                raise PolicyUnavailable(f"the engine broke the reply off after {len(output.token_ids)} tokens")
            if (known := output.extra_fields.get("num_cached_tokens")) is not None:
                self._lookups.update(prefix=len(token_ids), prefix_hits=known)
            for name, value in output.extra_fields.items():
                # An episode's age is that of its first token.
                if name != "min_global_steps" or name not in self._extra_fields:
                    self._extra_fields[name] = value
            return Sampled(list(output.token_ids), list(output.log_probs or [0.0] * len(output.token_ids)))

        return TokenPolicy(
            self.tokenizer,
            self._format,
            sizer,
            generate,
            limits=TokenLimits(
                max_prompt_tokens=self.rollout_config.prompt_length,
                max_response_tokens=self.rollout_config.response_length,
                max_reply_tokens=settings.max_reply_tokens,
                max_context_tokens=self.rollout_config.get("max_model_len"),
                max_images=_image_limit(self.rollout_config),
            ),
            primer=self._services.setup.primer,
        )

    async def _score(self, episode: Episode, item: RewardItem) -> Reward | None:
        function, services = load_reward(item.data_source), self._services
        try:
            return await services.gate.score(lambda: function(episode, item, services.judge, services.settings.reward))
        except EpisodeFailure as error:
            episode.fail(error)
            return None

    def _output(
        self, played: Played, policy: TokenPolicy, reward: Reward, source: str, judge_s: float
    ) -> AgentLoopOutput:
        episode, buffer = played.episode, policy.buffer
        waits_s = episode.waits_s | {"sandbox": played.waited_s}
        facts = {
            "score": reward.score,
            "acc": reward.accuracy,
            "format": reward.format,
            "tool_calls": float(episode.calls()),
            "tool_used": float(episode.calls() > 0),
            "tool_errors": float(episode.tool_errors),
            # For slots and sandboxes; how long the engine and the tools took is timed by verl's own metrics.
            "waited_s": waits_s["slot"] + waits_s["sandbox"],
            "restarts": float(played.restarts),
            "repeated_outage": float(played.repeated_outage),
        }
        numbers = episode_numbers(
            episode,
            source=source,
            tools=self._services.setup.settings.tools_on,
            reward=facts,
            observation_tokens=len(buffer.response_mask) - sum(buffer.response_mask),
            judge_s=judge_s,
            lookups=self._lookups + Counter(self._services.lookups.take()),
            image_names=[image.name for image in buffer.images],
        )
        return AgentLoopOutput(
            prompt_ids=buffer.prompt_ids,
            response_ids=buffer.response_ids,
            response_mask=buffer.response_mask,
            response_logprobs=buffer.response_logprobs,
            multi_modal_data={"images": buffer.images} if buffer.images else {},
            num_turns=2 * len(episode.turns),
            reward_score=reward.score,
            metrics=AgentLoopMetrics(
                generate_sequences=numbers.generate_s,
                tool_calls=numbers.tools_s,
            ),
            extra_fields={
                **self._extra_fields,
                "turn_scores": [],
                "tool_rewards": [],
                "reward_extra_info": facts,
                "episode": asdict(numbers),
                "waits_s": waits_s,
            },
        )


def _item(row: dict[str, Any]) -> RewardItem:
    extra = row.get("extra_info") or {}
    return RewardItem(
        data_source=str(row["data_source"]),
        question=row.get("question") or str(extra.get("question", "")),
        gold=accepted_answers(row["reward_model"]["ground_truth"]),
        item_id=str(row.get("index") or extra.get("index", "")),
        extra=extra,
    )


def _image_limit(rollout: Any) -> int | None:
    """How many images of one request vLLM takes; None if nobody bounded them (vLLM itself then allows 999)."""
    limit = rollout.get("limit_images") or OmegaConf.select(rollout, "engine_kwargs.vllm.limit_mm_per_prompt.image")
    count = limit.get("count") if hasattr(limit, "get") else limit
    return None if count is None else int(count)
