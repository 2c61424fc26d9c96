"""Parquet row -> what the agent loop needs. Image bytes stay as they are; nothing is decoded on the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from verl.utils.dataset.rl_dataset import RLHFDataset


class EpisodeDataset(RLHFDataset):
    """verl's data set without its decoding of images: rows keep text with `<image>` placeholders and file bytes.

    Named in the recipe by `verl.data.custom_cls`.
    """

    def __getitem__(self, item: int) -> dict[str, Any]:
        row: dict[str, Any] = dict(self.dataframe[item])
        images = row.pop(self.image_key, None) or []
        extra_info = dict(row.get("extra_info") or {})
        row["raw_prompt"] = row.pop(self.prompt_key)
        row["image_bytes"] = [_bytes_of(image) for image in images]
        row["extra_info"] = extra_info
        row["index"] = extra_info.get("index", item)
        # verl's collator wants at least one tensor.
        row["dummy_tensor"] = torch.tensor([0], dtype=torch.uint8)
        row["tools_kwargs"], row["interaction_kwargs"] = {}, {}
        return row


def _bytes_of(image: Any) -> bytes:
    if isinstance(image, dict) and image.get("bytes"):
        return bytes(image["bytes"])
    path = image.get("path") if isinstance(image, dict) else image
    if not isinstance(path, str):
        raise ValueError(f"an image is given as {type(image).__name__}; expected {{'bytes': …}}, {{'path': …}} or a path")
    return Path(path).read_bytes()
