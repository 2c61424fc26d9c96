"""verl's synchronous trainer with the metrics of agents, and a file of them that survives a restart."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import transfer_queue as tq
from verl.trainer.ppo.v1 import PPOTrainerSync, register_trainer

METRICS_FILE = "metrics.jsonl"
_POLL_S = 0.1


@register_trainer("episode_sync")
class EpisodeTrainer(PPOTrainerSync):  # type: ignore[misc]
    """Adds `episode/*` to every step, and appends each step's metrics to `<run>/metrics.jsonl`."""

    def _build_replay_buffer(self) -> Any:
        buffer = super()._build_replay_buffer()
        # verl looks for finished rollouts every 2 s, which is most of a small model's step.
        buffer.poll_interval = _POLL_S
        return buffer

    def _compute_metrics(
        self, batch: Any, metrics: dict[str, Any], timing_raw: dict[str, float], global_steps: int, epoch: int
    ) -> None:
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        metrics.update(self._episode_metrics(batch))
        line = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float | np.number)}
        line |= {"step": global_steps, "time_s": time.time()}
        path = Path(self.config.trainer.default_local_dir).parent / METRICS_FILE
        with path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
            lines.flush()
            os.fsync(lines.fileno())

    def _episode_metrics(self, batch: Any) -> dict[str, float]:
        rows = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields", "metrics"])
        values: dict[str, list[float]] = defaultdict(list)
        stops: Counter[str] = Counter()
        for tag, extra, timing in zip(batch.tags, list(rows["extra_fields"]), list(rows["metrics"]), strict=True):
            if tag.get("is_padding", False):
                continue
            stops[extra["stop_reason"]] += 1
            for name, value in extra["reward_extra_info"].items():
                values[f"episode/{name}"].append(float(value))
            for name in ("generate_sequences", "tool_calls"):
                values[f"episode/{name}_s"].append(float((timing or {}).get(name, 0.0)))
        count = sum(stops.values())
        asked = self.config.data.train_batch_size * self.config.actor_rollout_ref.rollout.n
        found = {f"{name}/mean": float(np.mean(numbers)) for name, numbers in values.items()}
        found |= {f"episode/stop_{name}_frac": number / count for name, number in stops.items()}
        return found | {"episode/count": float(count), "episode/failed_frac": 1.0 - count / asked}
