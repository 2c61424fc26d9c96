"""What TransferQueue holds of the rollouts that a step is trained on."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transfer_queue as tq
from PIL import Image

from reinforcement_learning.metrics import EpisodeNumbers, spread_choice
from reinforcement_learning.samples import SampleEpisode, side_by_side
from reinforcement_learning.verl_adapter.image_store import run_store


def episodes_of(batch: Any) -> list[tuple[str, EpisodeNumbers]]:
    """(group, numbers) of each rollout of verl's batch; the copies that verl pads with are left out."""
    return [(key.split("_")[0], EpisodeNumbers(**extra["episode"])) for key, extra in _rows(batch, "extra_fields")]


def advantages_of(batch: Any) -> dict[str, float]:
    """The advantage of each episode's sampled tokens, their mean where they differ; 0 if verl has masked them all."""
    found: dict[str, float] = {}
    for _, extra, values, mask in _rows(batch, "extra_fields", "advantages", "response_mask"):
        sampled = values[mask.bool()]
        found[extra["episode"]["episode_id"]] = round(float(sampled.double().mean()), 6) if len(sampled) else 0.0
    return found


def ref_log_probs_of(batch: Any) -> dict[str, np.ndarray[Any, Any]]:
    """What the reference policy thinks of each episode's sampled tokens: log-probabilities [num_sampled_tokens]."""
    return {
        extra["episode"]["episode_id"]: values[mask.bool()].float().cpu().numpy()
        for _, extra, values, mask in _rows(batch, "extra_fields", "ref_log_prob", "response_mask")
    }


def samples_of(
    batch: Any, episodes: Sequence[tuple[str, EpisodeNumbers]], *, number: int, seed: int, decode: Callable[[Any], str]
) -> list[SampleEpisode]:
    """Some episodes of a batch with their images.

    Args:
        batch: Of verl.
        episodes: As `episodes_of` gave them.
        number: How many, of different groups as long as there are any.
        seed: Of the choice.
        decode: Token ids -> text.
    """
    chosen = {one.episode_id for one in spread_choice(episodes, number=number, seed=seed)}
    found = []
    for _, extra, prompt, response in _rows(batch, "extra_fields", "prompts", "responses"):
        one = EpisodeNumbers(**extra["episode"])
        if one.episode_id not in chosen:
            continue
        images = [Image.open(io.BytesIO(run_store().get(name))) for name in one.image_names]
        found.append(
            SampleEpisode(
                episode_id=one.episode_id,
                source=one.source,
                prompt=decode(prompt),
                response=decode(response),
                score=one.reward["score"],
                acc=one.reward["acc"],
                tool_calls=sum(one.calls.values()),
                stop_reason=one.stop_reason,
                picture=side_by_side(images),
            )
        )
    return found


def _rows(batch: Any, *fields: str) -> Iterator[tuple[Any, ...]]:
    """(key, its fields) of each rollout."""
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=list(fields))
    columns = (data[name].unbind() if isinstance(data[name], torch.Tensor) else list(data[name]) for name in fields)
    for tag, key, *row in zip(batch.tags, batch.keys, *columns, strict=True):
        if not tag.get("is_padding", False):
            yield key, *row
