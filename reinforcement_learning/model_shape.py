"""How many parameters a Qwen2-VL or Qwen2.5-VL has, from its config.json alone: no torch, no weights."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.recipes import RecipeError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """The numbers of config.json that decide sizes. Vision layers are those of Qwen2.5-VL unless `plain_vision`."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    """The output head is the embedding; then verl loads the whole model in every rank's host memory."""
    vision_hidden: int
    vision_intermediate: int
    vision_depth: int
    patch_px: int = 14
    merge: int = 2
    temporal_patch: int = 2
    plain_vision: bool = False
    """Qwen2-VL's: LayerNorm with a bias and two linear layers, where Qwen2.5-VL has RMSNorm and three."""

    @property
    def head_dim(self) -> int:
        """Of one attention head."""
        return self.hidden // self.heads

    @property
    def _kv_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def layer_parameters(self) -> int:
        """Of one layer of the language model: attention with biases on query, key and value, a gated MLP, two norms."""
        attention = 2 * self.hidden * self.hidden + 2 * self.hidden * self._kv_width + self.hidden + 2 * self._kv_width
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Of the embedding and, where it is not the same, the output head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def language_parameters(self) -> int:
        """Of the language model with its embeddings."""
        return self.layers * self.layer_parameters + self.hidden + self.embedding_parameters

    @property
    def vision_parameters(self) -> int:
        """Of the vision tower with its projector."""
        width, inner, merged = self.vision_hidden, self.vision_intermediate, self.vision_hidden * self.merge**2
        attention = 4 * width * width + 4 * width
        if self.plain_vision:
            block = attention + 2 * width * inner + inner + width + 4 * width
            norm = 2 * width
        else:
            block = attention + 3 * width * inner + 2 * inner + width + 2 * width
            norm = width
        patches = width * 3 * self.temporal_patch * self.patch_px**2
        projector = norm + merged * merged + merged + merged * self.hidden + self.hidden
        return patches + self.vision_depth * block + projector

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.language_parameters + self.vision_parameters

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of all layers at two bytes each."""
        return 2 * 2 * self.layers * self._kv_width

    def lora_parameters(self, rank: int, *, vision: bool) -> int:
        """Of adapters on every linear layer (PEFT's `all-linear`, which leaves the output head out).

        Args:
            rank: Of the adapters.
            vision: Whether the vision tower has them as well.
        """
        text = 4 * self.hidden + 2 * (self.hidden + self._kv_width) + 3 * (self.hidden + self.intermediate)
        total = self.layers * text
        if vision:
            width, inner, merged = self.vision_hidden, self.vision_intermediate, self.vision_hidden * self.merge**2
            block = (width + 3 * width) + 2 * width + (2 if self.plain_vision else 3) * (width + inner)
            total += self.vision_depth * block + 2 * merged + merged + self.hidden
        return rank * total


KNOWN = {
    # config.json of Qwen/Qwen2.5-VL-{3B,7B,32B}-Instruct. Parameters by these numbers, and by transformers 5.5.4 on the meta
    # device: 3,754,622,976, 8,292,166,656 and 33,452,718,336.
    "3b": ModelShape(
        name="Qwen2.5-VL-3B",
        hidden=2048,
        intermediate=11008,
        layers=36,
        heads=16,
        kv_heads=2,
        vocabulary=151936,
        tied=True,
        vision_hidden=1280,
        vision_intermediate=3420,
        vision_depth=32,
    ),
    "7b": ModelShape(
        name="Qwen2.5-VL-7B",
        hidden=3584,
        intermediate=18944,
        layers=28,
        heads=28,
        kv_heads=4,
        vocabulary=152064,
        tied=False,
        vision_hidden=1280,
        vision_intermediate=3420,
        vision_depth=32,
    ),
    "32b": ModelShape(
        name="Qwen2.5-VL-32B",
        hidden=5120,
        intermediate=27648,
        layers=64,
        heads=40,
        kv_heads=8,
        vocabulary=152064,
        tied=False,
        vision_hidden=1280,
        vision_intermediate=3456,
        vision_depth=32,
    ),
}


def shape_of(model: str) -> ModelShape:
    """The shape of a model folder, or of a name or path that says its size, such as saves/deepeyesv2_7b/sft.

    Raises:
        RecipeError: The folder's config.json is no Qwen2-VL or Qwen2.5-VL, or the name says no size that is known.
    """
    config = Path(model) / "config.json"
    if config.is_file():
        try:
            values = json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RecipeError(f"{config} is no JSON ({error}); was its download cut off?") from error
        return shape_from_config(values, name=model)
    for size in re.findall(r"(?<![0-9.])(\d+b)(?![a-z])", model.lower()):
        if size in KNOWN:
            return KNOWN[size]
    raise RecipeError(
        f"there is no {config}, and the name says none of the known sizes ({', '.join(KNOWN)}); "
        "set run.model to a model folder"
    )


def shape_from_config(values: dict[str, Any], *, name: str) -> ModelShape:
    """From the content of config.json, with the language model's values at the top or under `text_config`.

    Raises:
        RecipeError: It is another family's, or a number is missing.
    """
    kind = values.get("model_type")
    if kind not in ("qwen2_5_vl", "qwen2_vl"):
        raise RecipeError(f"{name} is a {kind!r}; sizes are known for qwen2_5_vl and qwen2_vl")
    text = values | (values.get("text_config") or {})
    vision = values.get("vision_config") or {}
    plain = kind == "qwen2_vl"
    width = vision.get("embed_dim", 1280) if plain else vision.get("hidden_size", 1280)
    try:
        return ModelShape(
            name=name,
            hidden=text["hidden_size"],
            intermediate=text["intermediate_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            kv_heads=text["num_key_value_heads"],
            vocabulary=text["vocab_size"],
            tied=bool(values.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            vision_hidden=width,
            vision_intermediate=int(width * vision.get("mlp_ratio", 4)) if plain else vision.get("intermediate_size", 3420),
            vision_depth=vision.get("depth", 32),
            patch_px=vision.get("patch_size", 14),
            merge=vision.get("spatial_merge_size", 2),
            temporal_patch=vision.get("temporal_patch_size", 2),
            plain_vision=plain,
        )
    except KeyError as missing:
        raise RecipeError(f"config.json of {name} lacks {missing}; is it a whole model folder?") from missing
