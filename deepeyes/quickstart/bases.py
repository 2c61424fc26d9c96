"""The tiny models that a quickstart can start from, each with the architecture of a real one.

Sizes are the same: text of 4 layers, hidden 128, 4 heads, 2 key-value heads; vision of 2 or 3 blocks, hidden 64. What one
real model has and another has not is kept: in Qwen2.5-VL windows of attention in the vision tower; in Qwen3-VL its
deepstack, learned positions that are interpolated, interleaved M-RoPE and norms on queries and keys; and experts.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.chat_formats import ChatFormat, format_of

TokenId = Callable[[str], int]


@dataclass(frozen=True, kw_only=True)
class Base(ABC):
    """A kind of tiny model."""

    model_type: str
    title: str
    """Of the real models."""
    model_class: str
    """In transformers."""
    processor_class: str
    min_pixels: int
    max_pixels: int
    """At most 16 tokens an image."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """Of the image processor's colours."""
    plain_tokens: tuple[str, ...]
    """Single tokens in the real tokenizer as well, but ordinary text to every decoder."""

    @property
    def chat_format(self) -> ChatFormat:
        """How it is talked to."""
        return format_of(self.model_type)

    def preprocessors(self) -> dict[str, dict[str, Any]]:
        """Content of the processor's files, by their names."""
        common = {
            "processor_class": self.processor_class,
            "patch_size": self.chat_format.patch_px,
            "temporal_patch_size": 2,
            "merge_size": self.chat_format.merge,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        return self._preprocessors(common)

    def config(self, *, vocabulary: int, token_id: TokenId, tied: bool) -> Any:
        """The model's configuration.

        Args:
            vocabulary: Tokens of its tokenizer.
            token_id: The tokenizer's number of a token.
            tied: Whether the output head is the table of embeddings.
        """
        talk = self.chat_format
        text = {
            # Exactly the tokenizer's: vLLM masks padding rows of a larger table, the trainer would not.
            "vocab_size": vocabulary,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "initializer_range": 0.02,
            "bos_token_id": token_id(talk.padding),
            "eos_token_id": token_id(talk.reply_end),
            "pad_token_id": token_id(talk.padding),
            "tie_word_embeddings": tied,
        }
        vision = {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 128,
            "patch_size": talk.patch_px,
            "spatial_merge_size": talk.merge,
            "temporal_patch_size": 2,
            "initializer_range": 0.02,
        }
        tokens = {
            "image_token_id": token_id(talk.image_pad),
            "video_token_id": token_id(talk.video_pad),
            "vision_start_token_id": token_id(talk.image_start),
            "vision_end_token_id": token_id(talk.image_end),
        }
        return self._config(text, vision, tie_word_embeddings=tied, **tokens)

    @abstractmethod
    def _preprocessors(self, common: Mapping[str, Any]) -> dict[str, dict[str, Any]]: ...

    @abstractmethod
    def _config(self, text: Mapping[str, Any], vision: Mapping[str, Any], **rest: Any) -> Any: ...


class _Qwen25Vl(Base):
    def _preprocessors(self, common: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        limits = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        return {"preprocessor_config.json": {**common, **limits, "image_processor_type": "Qwen2VLImageProcessor"}}

    def _config(self, text: Mapping[str, Any], vision: Mapping[str, Any], **rest: Any) -> Any:
        from transformers import Qwen2_5_VLConfig

        # 16, 24, 24 of 64 in the real model, in the same proportions for a head of 32.
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}
        windows = {"depth": 2, "window_size": 112, "fullatt_block_indexes": [1]}
        return Qwen2_5_VLConfig(
            text_config={**text, "rope_parameters": rope}, vision_config={**vision, **windows}, **rest
        )


@dataclass(frozen=True, kw_only=True)
class _Qwen3Vl(Base):
    text_class: str = "Qwen3ForCausalLM"
    experts: Mapping[str, Any] = field(default_factory=dict)
    processor_class: str = "Qwen3VLProcessor"
    min_pixels: int = 4_096
    max_pixels: int = 16_384
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    plain_tokens: tuple[str, ...] = (
        "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>",
    )  # fmt: skip

    def _preprocessors(self, common: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        limited = {**common, "size": {"shortest_edge": self.min_pixels, "longest_edge": self.max_pixels}}
        return {
            "preprocessor_config.json": {**limited, "image_processor_type": "Qwen2VLImageProcessorFast"},
            "video_preprocessor_config.json": {**limited, "video_processor_type": "Qwen3VLVideoProcessor"},
        }

    def _config(self, text: Mapping[str, Any], vision: Mapping[str, Any], **rest: Any) -> Any:
        import transformers

        # 24, 20, 20 of 64 in the real model.
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True}
        # vLLM 0.28 on a CPU looks up the first architecture of the text model, and a real config.json names none.
        named = {"architectures": [self.text_class], "head_dim": 32, "rope_parameters": rope, **self.experts}
        # 6 x 6 learned positions for images of 8 x 8 patches, so that they are interpolated as in the real model.
        deep = {"depth": 3, "num_position_embeddings": 36, "deepstack_visual_indexes": [0, 1]}
        kind = getattr(transformers, self.model_class.replace("ForConditionalGeneration", "Config"))
        return kind(text_config={**text, **named}, vision_config={**vision, **deep}, **rest)


BASES: dict[str, Base] = {
    base.model_type: base
    for base in (
        _Qwen25Vl(
            model_type="qwen2_5_vl",
            title="Qwen2.5-VL",
            model_class="Qwen2_5_VLForConditionalGeneration",
            processor_class="Qwen2_5_VLProcessor",
            min_pixels=3_136,
            max_pixels=12_544,
            mean=(0.48145466, 0.4578275, 0.40821073),
            std=(0.26862954, 0.26130258, 0.27577711),
            plain_tokens=("<tool_call>", "</tool_call>"),
        ),
        _Qwen3Vl(model_type="qwen3_vl", title="Qwen3-VL", model_class="Qwen3VLForConditionalGeneration"),
        _Qwen3Vl(
            model_type="qwen3_vl_moe",
            title="Qwen3-VL with experts",
            model_class="Qwen3VLMoeForConditionalGeneration",
            text_class="Qwen3MoeForCausalLM",
            # 128 experts of 768, 8 for each token, in the 30B-A3B.
            experts={
                "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 192, "decoder_sparse_step": 1,
                "norm_topk_prob": True,
            },
        ),
    )
}  # fmt: skip
DEFAULT_BASE = "qwen2_5_vl"


def base_of(folder: Path) -> Base | None:
    """Which of `BASES` a model's folder holds; None if it is not there, or is none of them."""
    try:
        return BASES.get(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
