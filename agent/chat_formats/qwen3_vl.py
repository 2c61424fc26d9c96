"""Qwen3-VL, dense and mixture of experts: ChatML without a default system message, four patches of 16 px to a token.

The Thinking models' own template opens a thought at every reply, and drops the thoughts of all replies but the last
from what they read. Here thoughts are kept, as they are in training: what a model has once written it reads again.
"""

from typing import Any

from agent.chat_formats._chatml import ChatMl

_FAMILY: dict[str, Any] = {
    "model_types": ("qwen3_vl", "qwen3_vl_moe"),
    "hub_names": r"qwen[-_]?3[-_]?vl",
    # Source of the numbers: Qwen3-VL-8B-Instruct, preprocessor_config.json.
    "patch_px": 16,
    "min_pixels": 65_536,
    "max_pixels": 16_777_216,
}

FORMATS = (
    ChatMl(name="Qwen3-VL Instruct", llama_factory_template="qwen3_vl_nothink", **_FAMILY),
    ChatMl(name="Qwen3-VL Thinking", llama_factory_template="qwen3_vl", primer="<think>\n", **_FAMILY),
)
