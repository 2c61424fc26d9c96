"""verl's synchronous trainer with the rules of episodes: which groups count, what a checkpoint is, and the metrics."""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from omegaconf import DictConfig, OmegaConf, open_dict
from verl.trainer.ppo.checkpoint_callback import CheckpointCallback
from verl.trainer.ppo.v1 import PPOTrainerSync
from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

from reinforcement_learning.alarms import Watch
from reinforcement_learning.checkpoints import Checkpoints
from reinforcement_learning.failed_groups import FailedGroups
from reinforcement_learning.metrics import EpisodeNumbers, step_metrics
from reinforcement_learning.resume import ADVANTAGES_FILE, METRICS_FILE, REF_LOG_PROBS, restarts_data
from reinforcement_learning.samples import SAMPLES_KEY, TrackedEpisodes, log_samples, shows_samples
from reinforcement_learning.verl_adapter import advantages
from reinforcement_learning.verl_adapter.image_store import KEPT_STEPS, run_store
from reinforcement_learning.verl_adapter.replay import EpisodeBuffer
from reinforcement_learning.verl_adapter.rollouts import reason_of
from reinforcement_learning.verl_adapter.services import announce
from reinforcement_learning.verl_adapter.step_episodes import advantages_of, episodes_of, ref_log_probs_of, samples_of

MODE = "sync"
FAILED_GROUPS_KEY = "trainer.v1.sampler.sampler_kwargs.failed_groups"
"""Where the recipe's `agent.failed_groups` stands in verl's configuration."""
DROPPED_GROUPS_FILE = "dropped_groups.jsonl"
_POLL_S = 0.1


def take_place() -> None:
    """Put our trainer where verl looks for its own synchronous one.

    verl compares the trainer's name with "sync" in many places (trainer/ppo/v1/trainer_base.py: the buffer, checkpoints, the
    data loader). Under any other name a trainer gets the asynchronous halves of them, which throw a whole group away for one
    lost rollout and put all rollouts into each checkpoint.
    """
    TRAINER_REGISTRY[MODE] = EpisodeTrainer


class EpisodeTrainer(PPOTrainerSync):  # type: ignore[misc]
    """Adds `episode/*` to every step, and appends each step's metrics to `<run>/metrics.jsonl`."""

    checkpoint_callback: CheckpointCallback
    train_dataloader: Any

    def __init__(self, config: DictConfig) -> None:
        with open_dict(config):
            # The data loader must hand out single prompts to replace single groups.
            config.trainer.v1.sampler.sync_refill_failed_groups = _failed_groups(config).refill
            if config.algorithm.adv_estimator == "grpo":
                config.algorithm.adv_estimator = advantages.NAME
            # verl would delete an old checkpoint before the new one is complete; `Checkpoints` does it afterwards.
            self._checkpoints = Checkpoints(
                Path(config.trainer.default_local_dir).resolve(), config.trainer.get("max_actor_ckpt_to_keep", None)
            )
            config.trainer.max_actor_ckpt_to_keep = config.trainer.max_critic_ckpt_to_keep = None
        self._step_metrics: dict[str, Any] = {}
        self._step_batch: Any = None
        super().__init__(config)

    def _build_replay_buffer(self) -> EpisodeBuffer:
        failed_groups = _failed_groups(self.config)
        metric = self._resolve_filter_groups_metric()
        groups = self.config.algorithm.get("filter_groups", None) or {}
        sampler, batch_size = self.config.trainer.v1.sampler, self.config.data.train_batch_size
        exact = metric is not None or failed_groups.refill
        return EpisodeBuffer(
            failed_groups=failed_groups,
            rollouts=self.config.actor_rollout_ref.rollout.n,
            dropped=self._run / DROPPED_GROUPS_FILE,
            max_gen_batches=groups.get("max_num_gen_batches", 0),
            trainer_mode=MODE,
            trainer_config=self.config.trainer.v1.get(MODE, {}),
            max_off_policy_threshold=sampler.max_off_policy_threshold,
            max_off_policy_strategy=sampler.max_off_policy_strategy,
            sampler_kwargs=sampler.sampler_kwargs,
            refill_fn=self._add_prompts_to_generate,
            filter_groups_metric=metric,
            train_batch_size=batch_size,
            gen_batch_size=1 if exact else (self.config.data.get("gen_batch_size", None) or batch_size),
            max_inflight_gen_batches=groups.get("max_inflight_gen_batches", 1) if metric is not None else 1,
            # verl looks for finished rollouts every 2 s, which is most of a small model's step.
            poll_interval=_POLL_S,
        )

    def step(self, metrics: dict[str, Any], timing_raw: dict[str, float]) -> Any:
        """One step of training; what it measured is kept for the checkpoint that may follow."""
        batch = super().step(metrics, timing_raw)
        self._step_metrics, self._step_batch = metrics, batch
        return batch

    def _save_checkpoint(self) -> None:
        metrics = _numbers(self._step_metrics | step_metrics(episodes_of(self._step_batch)))
        trainer = self.config.trainer
        callback = self.checkpoint_callback
        directory = trainer.default_local_dir
        self._checkpoints.begin()
        trainer.default_local_dir, self.checkpoint_callback = str(self._checkpoints.saving), CheckpointCallback(self.config)
        try:
            super()._save_checkpoint()
        finally:
            trainer.default_local_dir, self.checkpoint_callback = directory, callback
        path = self._checkpoints.finish(self.global_steps, metrics | {"step": self.global_steps, "time_s": time.time()})
        callback.on_save(trainer=self, global_step=self.global_steps, checkpoint_dir=str(path), async_save=False)

    def _load_checkpoint(self) -> None:
        newest = self._checkpoints.newest()
        trainer = self.config.trainer
        loader = self.train_dataloader
        if trainer.resume_mode == "auto":
            with open_dict(trainer):
                trainer.resume_mode = "resume_path" if newest else "disable"
                trainer.resume_from_path = str(newest.path) if newest else None
            if newest and restarts_data(self._run, newest.step):
                self.train_dataloader = _NoPosition()
        try:
            super()._load_checkpoint()
        finally:
            self.train_dataloader = loader

    def _routing_metrics(self) -> dict[str, float]:
        balancer = self.llm_server_manager.global_load_balancer
        # A recipe may name a router of its own.
        spread = ray.get(balancer.take_spread.remote()) if hasattr(balancer, "take_spread") else {}
        return {f"routing/{name}": value for name, value in spread.items()}

    def _validate(self) -> dict[str, float]:
        found: dict[str, float] = super()._validate()
        if self.global_steps == 0:
            # verl tells it to its trackers alone; no other line is there yet, but that of a start which was killed.
            (self._run / METRICS_FILE).unlink(missing_ok=True)
            self._append(METRICS_FILE, _numbers(found) | {"step": 0, "time_s": time.time()})
        return found

    def _show_samples(self, batch: Any, episodes: Sequence[tuple[str, EpisodeNumbers]], step: int) -> None:
        settings = TrackedEpisodes.model_validate(OmegaConf.select(self.config, SAMPLES_KEY) or {})
        if not settings.wanted(step) or not shows_samples(self.logger.logger):
            return
        try:
            decode = functools.partial(self.tokenizer.decode, skip_special_tokens=True)
            samples = samples_of(batch, episodes, number=settings.number, seed=step, decode=decode)
            log_samples(self.logger.logger, samples, step)
        except Exception as error:  # noqa: BLE001 - a step is worth more than what a tracker shows of it
            announce(f"step {step}: the sample episodes are not shown: {reason_of(error)}")

    @functools.cached_property
    def _watch(self) -> Watch:
        path = self._run / METRICS_FILE
        lines = map(json.loads, path.read_text(encoding="utf-8").splitlines()) if path.exists() else ()
        return Watch([line for line in lines if line["step"] > 0], announce)

    @property
    def _run(self) -> Path:
        return Path(self.config.trainer.default_local_dir).parent

    def on_init_end(self) -> None:
        """Do what verl's does; a run that was killed left images of its last steps behind."""
        super().on_init_end()
        run_store().drop_steps()

    def on_step_end(self) -> None:
        """Do what verl's does; images that rollouts made are needed no longer."""
        super().on_step_end()
        run_store().drop_steps_later(before=self.global_steps - KEPT_STEPS)

    def _compute_metrics(
        self, batch: Any, metrics: dict[str, Any], timing_raw: dict[str, float], global_steps: int, epoch: int
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        episodes = episodes_of(batch)
        metrics.update(step_metrics(episodes))
        self._show_samples(batch, episodes, global_steps)
        metrics.update(self._routing_metrics())
        metrics.update(self._watch.look(_numbers(metrics)))
        self._append(ADVANTAGES_FILE, {"step": global_steps, "advantages": advantages_of(batch)})
        if self.use_reference_policy:
            path = self._run / REF_LOG_PROBS / f"{global_steps}.npz"
            path.parent.mkdir(exist_ok=True)
            np.savez_compressed(path, **ref_log_probs_of(batch))  # type: ignore[arg-type]
        self._append(METRICS_FILE, _numbers(metrics) | {"step": global_steps, "time_s": time.time()})

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self._run / name).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
            lines.flush()
            os.fsync(lines.fileno())


class _NoPosition:
    """Stands in for the data loader while a checkpoint is read whose position in the data is of no use."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Forget it."""


def _failed_groups(config: DictConfig) -> FailedGroups:
    values = OmegaConf.select(config, FAILED_GROUPS_KEY)
    return FailedGroups() if values is None else FailedGroups.model_validate(OmegaConf.to_container(values, resolve=True))


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float | np.number)}
