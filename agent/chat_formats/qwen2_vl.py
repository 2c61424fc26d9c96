"""Qwen2-VL and Qwen2.5-VL: ChatML with a default system message, four patches of 14 px to a token."""

from agent.chat_formats._chatml import ChatMl

FORMATS = (
    ChatMl(
        name="Qwen2-VL and Qwen2.5-VL",
        model_types=("qwen2_vl", "qwen2_5_vl"),
        hub_names=r"qwen[-_]?2(?:[._]5)?[-_]?vl",
        llama_factory_template="qwen2_vl",
        default_system="You are a helpful assistant.",
        # Source of the numbers: Qwen2.5-VL-7B-Instruct, preprocessor_config.json.
        patch_px=14,
        min_pixels=3_136,
        max_pixels=12_845_056,
    ),
)
