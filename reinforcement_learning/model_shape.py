"""How many parameters a vision-language model has, from its config.json alone: no torch, no weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.chat_formats import UnknownFamily, format_of, format_of_hub_name
from agent.recipes import RecipeError


@dataclass(frozen=True, kw_only=True, slots=True)
class TextShape:
    """The numbers of the language model that decide sizes."""

    hidden: int
    intermediate: int
    """Of the gated MLP; of one expert where there are experts."""
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    """The output head is the embedding; then verl loads the whole model in every rank's host memory."""
    biases: bool
    """On query, key and value."""
    head_norms: bool
    """On query and key, one for all heads."""
    experts: int = 0
    """0: one MLP a layer."""
    experts_per_token: int = 1

    @property
    def query_width(self) -> int:
        """The width of all heads' queries."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """The width of all heads' keys, or values."""
        return self.kv_heads * self.head_dim

    @property
    def routed(self) -> int:
        """Experts that a token is sent to; 0 where there are none."""
        return self.experts_per_token if self.experts else 0

    @property
    def active_intermediate(self) -> int:
        """What one token goes through."""
        return self.intermediate * self.experts_per_token

    @property
    def layer_parameters(self) -> int:
        """The parameters of one layer: attention, MLP or experts with their router, norms."""
        attention = 2 * self.hidden * self.query_width + 2 * self.hidden * self.kv_width
        attention += self.query_width + 2 * self.kv_width if self.biases else 0
        attention += 2 * self.head_dim if self.head_norms else 0
        mlp = 3 * self.hidden * self.intermediate * max(1, self.experts) + self.hidden * self.experts
        return attention + mlp + 2 * self.hidden

    @property
    def embedding_parameters(self) -> int:
        """The parameters of the embedding and, where it is not the same, the output head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All of them, with the embeddings."""
        return self.layers * self.layer_parameters + self.hidden + self.embedding_parameters

    def lora_parameters(self) -> int:
        """What each rank of adapters adds on all linear layers but the output head; experts and routers are none."""
        attention = 2 * (self.hidden + self.query_width) + 2 * (self.hidden + self.kv_width)
        return self.layers * (attention + (0 if self.experts else 3 * (self.hidden + self.intermediate)))


@dataclass(frozen=True, kw_only=True, slots=True)
class VisionShape:
    """The numbers of the vision tower and its projector that decide sizes."""

    hidden: int
    intermediate: int
    depth: int
    out: int
    """Width of the language model."""
    gated: bool
    """Qwen2.5-VL's: RMSNorm and three linear layers, where the others have LayerNorm with a bias and two."""
    patch_px: int
    merge: int = 2
    temporal_patch: int = 2
    positions: int = 0
    """Learned ones; 0 for none. With them the patches' layer has a bias."""
    deep: int = 0
    """Blocks whose features reach the language model through a projector of their own."""

    @property
    def parameters(self) -> int:
        """All of them."""
        width, inner, merged = self.hidden, self.intermediate, self.hidden * self.merge**2
        attention = 4 * width * width + 4 * width
        norm = width if self.gated else 2 * width
        mlp = 3 * width * inner + 2 * inner + width if self.gated else 2 * width * inner + inner + width
        patches = width * 3 * self.temporal_patch * self.patch_px**2
        learned = width * (1 + self.positions) if self.positions else 0
        projector = merged * merged + merged + merged * self.out + self.out
        return (
            patches + learned + self.depth * (attention + mlp + 2 * norm)
            + projector + norm + self.deep * (projector + 2 * merged)
        )  # fmt: skip

    def lora_parameters(self) -> int:
        """The parameters that each rank of adapters adds on every linear layer."""
        width, inner, merged = self.hidden, self.intermediate, self.hidden * self.merge**2
        block = (width + 3 * width) + 2 * width + (3 if self.gated else 2) * (width + inner)
        return self.depth * block + (1 + self.deep) * (2 * merged + merged + self.out)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """A language model with a vision tower."""

    name: str
    text: TextShape
    vision: VisionShape

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.text.parameters + self.vision.parameters

    @property
    def factor_px(self) -> int:
        """Pixels a side that become one token."""
        return self.vision.patch_px * self.vision.merge

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of all layers at two bytes each."""
        return 2 * 2 * self.text.layers * self.text.kv_width

    def lora_parameters(self, rank: int, *, vision: bool) -> int:
        """The parameters of adapters on every linear layer (PEFT's `all-linear`).

        Args:
            rank: Of the adapters.
            vision: Whether the vision tower has them as well.
        """
        return rank * (self.text.lora_parameters() + (self.vision.lora_parameters() if vision else 0))


def _qwen2_5(
    size: str, vocabulary: int, *, vision_intermediate: int = 3420, tied: bool = False, **text: int
) -> ModelShape:
    return ModelShape(
        name=f"Qwen2.5-VL-{size}",
        text=TextShape(vocabulary=vocabulary, tied=tied, head_dim=128, biases=True, head_norms=False, **text),
        vision=VisionShape(
            hidden=1280, intermediate=vision_intermediate, depth=32, out=text["hidden"], gated=True, patch_px=14
        ),
    )


def _qwen3(size: str, *, small_vision: bool = False, tied: bool = False, **text: int) -> ModelShape:
    width, inner, depth = (1024, 4096, 24) if small_vision else (1152, 4304, 27)
    return ModelShape(
        name=f"Qwen3-VL-{size}",
        text=TextShape(vocabulary=151936, tied=tied, head_dim=128, biases=False, head_norms=True, **text),
        vision=VisionShape(
            hidden=width, intermediate=inner, depth=depth, out=text["hidden"],
            gated=False, patch_px=16, positions=2304, deep=3,
        ),
    )  # fmt: skip


KNOWN: dict[str, dict[str, ModelShape]] = {
    # config.json of Qwen/Qwen2.5-VL-{3B,7B,32B}-Instruct and Qwen/Qwen3-VL-{2B,4B,8B,32B,30B-A3B}-Instruct.
    "qwen2_5_vl": {
        "3b": _qwen2_5("3B", 151936, hidden=2048, intermediate=11008, layers=36, heads=16, kv_heads=2, tied=True),
        "7b": _qwen2_5("7B", 152064, hidden=3584, intermediate=18944, layers=28, heads=28, kv_heads=4),
        "32b": _qwen2_5(
            "32B", 152064, hidden=5120, intermediate=27648, layers=64, heads=40, kv_heads=8, vision_intermediate=3456
        ),
    },
    "qwen3_vl": {
        "2b": _qwen3("2B", hidden=2048, intermediate=6144, layers=28, heads=16, kv_heads=8, tied=True, small_vision=True),
        "4b": _qwen3("4B", hidden=2560, intermediate=9728, layers=36, heads=32, kv_heads=8, tied=True, small_vision=True),
        "8b": _qwen3("8B", hidden=4096, intermediate=12288, layers=36, heads=32, kv_heads=8),
        "32b": _qwen3("32B", hidden=5120, intermediate=25600, layers=64, heads=64, kv_heads=8),
        "30b": _qwen3(
            "30B-A3B", hidden=2048, intermediate=768, layers=48, heads=32, kv_heads=4, experts=128, experts_per_token=8
        ),
    },
}  # fmt: skip
"""By family and by the size that a name says."""


def shape_of(model: str) -> ModelShape:
    """The shape of a model folder, or of a name or path that says its size, such as saves/deepeyesv2_7b/sft.

    A name that says no family is taken for Qwen2.5-VL's.

    Raises:
        RecipeError: The folder's config.json is of a family that is not known, or the name says no size that is known.
    """
    config = Path(model) / "config.json"
    if config.is_file():
        try:
            values = json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RecipeError(f"{config} is no JSON ({error}); was its download cut off?") from error
        return shape_from_config(values, name=model)
    named = format_of_hub_name(model)
    sizes = next((sizes for kind, sizes in KNOWN.items() if named and kind in named.model_types), KNOWN["qwen2_5_vl"])
    for size in re.findall(r"(?<![0-9.])(\d+b)(?![a-z])", model.lower()):
        if size in sizes:
            return sizes[size]
    raise RecipeError(
        f"there is no {config}, and the name says none of the known sizes ({', '.join(sizes)}); "
        "set run.model to a model folder"
    )


def shape_from_config(values: Mapping[str, Any], *, name: str) -> ModelShape:
    """Read the shape from config.json, with the language model's values at the top or under `text_config`.

    Qwen2-VL, Qwen2.5-VL and Qwen3-VL are counted exactly. For another family the vision tower is taken to be built as
    Qwen2-VL's, and the language model to have neither biases nor norms in its attention; GLM-4.1V-9B is then 4 % too large.

    Raises:
        RecipeError: Its family is not known, or a number is missing.
    """
    kind = values.get("model_type")
    try:
        talk = format_of(kind)
    except UnknownFamily as error:
        raise RecipeError(f"{name}: {error}") from error
    text = {**values, **(values.get("text_config") or {})}
    vision = values.get("vision_config") or {}
    exact, gated = str(kind), kind == "qwen2_5_vl"
    # transformers 5 writes `num_local_experts` where the published files have `num_experts`.
    experts = text.get("num_experts") or text.get("num_local_experts") or 0
    try:
        language = TextShape(
            hidden=text["hidden_size"],
            intermediate=text["moe_intermediate_size"] if experts else text["intermediate_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            kv_heads=text["num_key_value_heads"],
            head_dim=text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"],
            vocabulary=text["vocab_size"],
            tied=bool(values.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
            biases=exact in ("qwen2_vl", "qwen2_5_vl"),
            head_norms=exact.startswith("qwen3"),
            experts=experts,
            experts_per_token=text.get("num_experts_per_tok") or 1,
        )
    except KeyError as missing:
        raise RecipeError(f"config.json of {name} lacks {missing}; is it a whole model folder?") from missing
    width = vision.get("embed_dim", 1280) if exact == "qwen2_vl" else vision.get("hidden_size", 1280)
    tower = VisionShape(
        hidden=width,
        intermediate=vision.get("intermediate_size") or (3420 if gated else int(width * vision.get("mlp_ratio", 4))),
        depth=vision.get("depth", 32),
        out=language.hidden,
        gated=gated,
        patch_px=vision.get("patch_size", talk.patch_px),
        merge=vision.get("spatial_merge_size", talk.merge),
        temporal_patch=vision.get("temporal_patch_size", 2),
        positions=vision.get("num_position_embeddings") or 0,
        deep=len(vision.get("deepstack_visual_indexes") or ()),
    )
    return ModelShape(name=name, text=language, vision=tower)
