"""verl's agent loop -> `run_episode` -> tokens, mask, reward."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from PIL import Image
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput

from agent.episode import Episode, run_episode
from agent.errors import EpisodeFailure
from agent.images import ImageFile
from agent.messages import messages_from_rows
from agent.protocol import STOP_STRINGS
from reinforcement_learning.rewards import Reward, Task, load_reward
from reinforcement_learning.verl_adapter.images import QwenImageSizer
from reinforcement_learning.verl_adapter.services import services
from reinforcement_learning.verl_adapter.token_policy import Sampled, TokenLimits, TokenPolicy


class EpisodeFailed(Exception):
    """An outage ended the episode. verl leaves it out of the batch and trains on the rest of its group."""


class EpisodeAgentLoop(AgentLoopBase):
    """One rollout. verl makes a new object for each; `settings_path` comes from the agent-loop file."""

    def __init__(self, *args: Any, settings_path: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._services = services(settings_path)
        self._extra_fields: dict[str, Any] = {}

    async def run(self, sampling_params: dict[str, Any], priority: int = 0, **row: Any) -> AgentLoopOutput:
        """Roll out one row and score it.

        Raises:
            EpisodeFailed: Our outage; never scored.
        """
        settings = self._services.settings
        images = tuple(ImageFile.shared(data) for data in row["image_bytes"])
        self._assert_mm_supported(bool(images))
        task = _task(row)
        policy = self._policy(sampling_params, priority)
        episode = await run_episode(
            self._services.opening(messages_from_rows(row["raw_prompt"], images)),
            policy=policy,
            tools=self._services.tools(images, task.item_id),
            limits=settings.episode_limits,
            slots=self._services.slots,
        )
        reward = None if episode.failed else await self._score(episode, task)
        self._record(episode, task, reward, row)
        if reward is None:
            raise EpisodeFailed(f"{task.item_id}: {episode.failure}")
        if not policy.buffer.response_ids:
            raise EpisodeFailed(f"{task.item_id}: {episode.stop_reason.value} before the first token")
        return self._output(episode, policy, reward)

    def _policy(self, sampling_params: dict[str, Any], priority: int) -> TokenPolicy:
        settings = self._services.settings
        request_id = uuid4().hex

        async def generate(
            token_ids: list[int], images: list[Image.Image], *, max_tokens: int, logit_bias: dict[int, float]
        ) -> Sampled:
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
            for name, value in output.extra_fields.items():
                # An episode's age is that of its first token.
                if name != "min_global_steps" or name not in self._extra_fields:
                    self._extra_fields[name] = value
            return Sampled(list(output.token_ids), list(output.log_probs or [0.0] * len(output.token_ids)))

        return TokenPolicy(
            self.tokenizer,
            QwenImageSizer(self.processor, max_pixels=settings.image_max_pixels),
            generate,
            limits=TokenLimits(
                max_prompt_tokens=self.rollout_config.prompt_length,
                max_response_tokens=self.rollout_config.response_length,
                max_reply_tokens=settings.max_reply_tokens,
            ),
            primer=settings.primer,
        )

    async def _score(self, episode: Episode, task: Task) -> Reward | None:
        function, services = load_reward(task.data_source), self._services
        try:
            return await services.gate.score(lambda: function(episode, task, services.judge, services.settings.reward))
        except EpisodeFailure as error:
            episode.failure = f"{type(error).__name__}: {error}"
            return None

    def _record(self, episode: Episode, task: Task, reward: Reward | None, row: dict[str, Any]) -> None:
        if self._services.recorder is None:
            return
        parts: dict[str, Any] = {}
        if reward is not None:
            parts = {"reward": reward.score, "accuracy": reward.accuracy, "format": reward.format}
            parts |= {name: getattr(reward, name) for name in ("bonus", "cost", "second_opinion") if getattr(reward, name)}
        self._services.recorder.write(
            episode,
            step=int(row.get("global_steps", -1)),
            group=str(row.get("uid", "")),
            data_source=task.data_source,
            item_id=task.item_id,
            kind=str(task.extra.get("kind", "")),
            gold=task.gold,
            decided_by=reward.decided_by if reward else "nobody",
            **parts,
        )

    def _output(self, episode: Episode, policy: TokenPolicy, reward: Reward) -> AgentLoopOutput:
        buffer = policy.buffer
        facts = {
            "score": reward.score,
            "acc": reward.accuracy,
            "format": reward.format,
            "tool_calls": float(episode.calls()),
            "tool_used": float(episode.calls() > 0),
            "tool_errors": float(episode.tool_errors),
        }
        return AgentLoopOutput(
            prompt_ids=buffer.prompt_ids,
            response_ids=buffer.response_ids,
            response_mask=buffer.response_mask,
            response_logprobs=buffer.response_logprobs,
            multi_modal_data={"images": buffer.images} if buffer.images else {},
            num_turns=2 * len(episode.turns),
            reward_score=reward.score,
            metrics=AgentLoopMetrics(
                generate_sequences=sum(turn.reply_s for turn in episode.turns),
                tool_calls=sum(turn.tool_s for turn in episode.turns),
            ),
            extra_fields={
                **self._extra_fields,
                "turn_scores": [],
                "tool_rewards": [],
                "reward_extra_info": facts,
                "stop_reason": episode.stop_reason.value,
            },
        )


def _task(row: dict[str, Any]) -> Task:
    extra = row.get("extra_info") or {}
    return Task(
        data_source=str(row["data_source"]),
        question=str(extra.get("question", "")),
        gold=str(row["reward_model"]["ground_truth"]),
        item_id=str(extra.get("index", "")),
        extra=extra,
    )
