"""verl's agent workers and their manager, with what episodes need: `rollout.agent.agent_loop_manager_class`."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import ray
import transfer_queue as tq
from omegaconf import OmegaConf
from verl.trainer.ppo.v1 import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.import_utils import resolve_config_path

from reinforcement_learning.verl_adapter.pixels import SendsReferences
from reinforcement_learning.verl_adapter.rollouts import (
    CURRENT,
    EpisodeFailed,
    LossLog,
    RolloutLost,
    RolloutSoFar,
    item_of,
    reason_of,
    record,
    share_out,
    step_of,
)
from reinforcement_learning.verl_adapter.services import announce, recorder

LOST_TAG = "lost_"
"""With the number of the session, on the key of a prompt: why that rollout is lost."""
_QUEUE_PAUSES_S = (1.0, 5.0, 25.0)
_VERL_LOG = "verl.trainer.ppo.v1.agent_loop_tq"
_log = logging.getLogger(__name__)


def _is_news(entry: logging.LogRecord) -> bool:
    """verl logs a traceback for each lost session, thousands when a server is away; ours were told of already."""
    return not (entry.exc_info and entry.exc_info[0] is not None and issubclass(entry.exc_info[0], RolloutLost))


class EpisodeWorker(SendsReferences, AgentLoopWorkerTQ.__ray_metadata__.modified_class):  # type: ignore[misc]
    """One process that plays episodes. Every rollout that it loses, wherever that happens, is recorded with its reason."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        loops = OmegaConf.load(resolve_config_path(self.rollout_config.agent.agent_loop_config_path))
        self._settings_path = next(str(loop.settings_path) for loop in loops if "settings_path" in loop)
        self._losses = LossLog(announce)
        self._tagging = asyncio.Lock()
        self._lost: dict[str, dict[str, str]] = defaultdict(dict)
        """By prompt: its tags so far."""
        logging.getLogger(_VERL_LOG).addFilter(_is_news)

    async def _run_prompt(
        self, prompt: dict[str, Any], sampling_params: dict[str, Any], trajectory: dict[str, Any], trace: bool = False
    ) -> None:
        uid = str(prompt["uid"])
        try:
            await super()._run_prompt(prompt, sampling_params, trajectory, trace=trace)
        except Exception as error:  # noqa: BLE001 - nobody awaits this task: the trainer would wait for the group for ever
            await self._give_up(uid, step_of(prompt), reason_of(error), "val" if trajectory["validate"] else "train")
        finally:
            self._lost.pop(uid, None)

    async def _give_up(self, uid: str, step: int, reason: str, partition: str) -> None:
        """Say that a group is at its end although TransferQueue failed; its rollouts that arrived there are trained on."""
        announce(f"step {step}: a group of rollouts was not finished: {reason}")
        tags = {**self._lost[uid], "status": "failure"}
        for pause_s in (*_QUEUE_PAUSES_S, None):
            try:
                await tq.async_kv_put(key=uid, partition_id=partition, tag={f"{LOST_TAG}group": reason} | tags)
                return
            except Exception as problem:  # noqa: BLE001 - as above
                announce(f"step {step}: TransferQueue did not take the end of a group: {reason_of(problem)}")
            if pause_s is not None:
                await asyncio.sleep(pause_s)

    async def _run_agent_loop(
        self, sampling_params: dict[str, Any], trajectory: dict[str, Any], *, agent_name: str, trace: bool = True, **row: Any
    ) -> Any:
        """Play one rollout and hand it to the trainer.

        Raises:
            RolloutLost: Whatever broke; it is recorded, tagged for the sampler and announced.
        """
        rollout, validation = RolloutSoFar(), bool(trajectory["validate"])
        token = CURRENT.set(rollout)
        try:
            output = await super()._run_agent_loop(sampling_params, trajectory, agent_name=agent_name, trace=trace, **row)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the worker is being stopped
            raise await self._lose(rollout, row, error, validation=validation) from error
        except Exception as error:
            raise await self._lose(rollout, row, error, validation=validation) from error
        finally:
            CURRENT.reset(token)
        await record(recorder(self._settings_path), rollout, row, validation=validation)
        return output

    async def _lose(
        self, rollout: RolloutSoFar, row: Mapping[str, Any], error: BaseException, *, validation: bool
    ) -> RolloutLost:
        reason = reason_of(error)
        first = self._losses.add(step_of(row), reason, item_id=item_of(row))
        if first and not isinstance(error, EpisodeFailed):
            # No outage that is known: where it happened is wanted.
            _log.error("a rollout was lost", exc_info=error)
        try:
            await record(recorder(self._settings_path), rollout, row, validation=validation, lost=reason)
            await self._tag(row, reason, "val" if validation else "train")
        except Exception as problem:  # noqa: BLE001 - the rollout is lost either way, and verl must hear of it
            announce(f"the loss of a rollout could not be noted: {reason_of(problem)}")
        return RolloutLost(reason)

    async def _tag(self, row: Mapping[str, Any], reason: str, partition: str) -> None:
        """Tell the sampler. TransferQueue reads a key's tags, adds to them and writes them all: one at a time."""
        uid = str(row["uid"])
        async with self._tagging:
            self._lost[uid][f"{LOST_TAG}{row['session_id']}"] = reason
            await tq.async_kv_put(key=uid, partition_id=partition, tag=dict(self._lost[uid]))


class EpisodeManager(AgentLoopManagerTQ):  # type: ignore[misc]
    """Starts the workers and gives them prompts, one after the other, also where prompts come one by one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(EpisodeWorker)
        self._next = 0

    def generate_sequences(self, prompts: Any) -> None:
        """Hand out prompts without waiting for their rollouts.

        verl gives the first prompts of each call to the first workers: replacements of a lost group, which come one by one,
        would all land on one of them.
        """
        workers = self.agent_loop_workers
        sent, begin = [], 0
        for worker, count in share_out(len(prompts), len(workers), first=self._next):
            sent.append(workers[worker].generate_sequences.remote(prompts[begin : begin + count]))
            begin += count
        self._next = (self._next + len(prompts)) % len(workers)
        ray.get(sent)
