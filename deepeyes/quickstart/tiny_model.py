"""A Qwen2.5-VL of one million parameters with a tokenizer of its own, for runs on a CPU.

Same architecture, processor and chat template as the real model, so every framework treats it alike. Sizes: text 4
layers, hidden 128, 4 heads, 2 key-value heads, embeddings tied or not; vision 2 blocks, hidden 64. It sees an image at no
more than 12,544 px (112x112, 16 tokens).

    python -m deepeyes.quickstart.tiny_model SOURCE DIRECTORY [--untied] [--seed N]

SOURCE is a file of conversations, such as `<quickstart>/data/sft.json`, whose texts the tokenizer learns, or with
`--untied` the folder of a tiny model, whose weights are kept. Untied embeddings are those of the 7B and 32B; frameworks
load them in another way.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MAX_PIXELS = 12_544
MIN_PIXELS = 3_136
_MAX_VOCABULARY = 1024
# The split pattern of Qwen2's tokenizer: digits one by one, letters with one leading mark, spaces kept apart.
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPECIAL = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
]  # fmt: skip
# As in Qwen2.5 these are single tokens, but ordinary text to every decoder.
_PLAIN = ["<tool_call>", "</tool_call>"]
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _train_tokenizer(texts: Iterable[str], directory: Path) -> None:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=_MAX_VOCABULARY - len(_SPECIAL) - len(_PLAIN),
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(_SPECIAL)
    tokenizer.add_tokens(_PLAIN)
    tokenizer.save(str(directory / "tokenizer.json"))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def make_tiny_model(texts: Iterable[str], directory: Path, *, seed: int = 0, tied: bool = True) -> None:
    """Train a tokenizer on the texts and write a randomly initialised model beside it.

    Args:
        texts: What the model will read and write.
        directory: Made if it is not there; holds a complete Hugging Face model when this returns.
        seed: Of the weights.
        tied: Whether the output head is the table of embeddings, as in the 3B; the 7B and 32B have both.
    """
    import torch
    from transformers import AutoProcessor, AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    directory.mkdir(parents=True, exist_ok=True)
    _train_tokenizer([*texts, "system user assistant\nYou are a helpful assistant."], directory)
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "processor_class": "Qwen2_5_VLProcessor",
            "model_max_length": 32768,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "bos_token": None,
            "unk_token": None,
            "additional_special_tokens": _SPECIAL[1:],
            "add_prefix_space": False,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "errors": "replace",
            "split_special_tokens": False,
            "chat_template": _CHAT_TEMPLATE,
        },
    )
    _write_json(directory / "chat_template.json", {"chat_template": _CHAT_TEMPLATE})
    _write_json(
        directory / "preprocessor_config.json",
        {
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
            "min_pixels": MIN_PIXELS,
            "max_pixels": MAX_PIXELS,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
        },
    )
    tokenizer = AutoTokenizer.from_pretrained(directory)
    token_id = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        text_config={
            # Exactly the tokenizer's: vLLM masks padding rows of a larger table, the trainer would not.
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-6,
            "initializer_range": 0.02,
            "bos_token_id": token_id("<|endoftext|>"),
            "eos_token_id": token_id("<|im_end|>"),
            "pad_token_id": token_id("<|endoftext|>"),
            "tie_word_embeddings": tied,
            # 16, 24, 24 of 64 in the real model, in the same proportions for a head of 32.
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_heads": 4,
            "out_hidden_size": 128,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.02,
        },
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.update(
        eos_token_id=[token_id("<|im_end|>"), token_id("<|endoftext|>")],
        pad_token_id=token_id("<|endoftext|>"),
        do_sample=False,
    )
    model.save_pretrained(directory)
    AutoProcessor.from_pretrained(directory)


def untie(source: Path, directory: Path) -> None:
    """Copy a model whose embeddings are tied into one that has them twice; both compute the same until one is trained."""
    import torch
    from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

    shutil.copytree(source, directory, ignore=shutil.ignore_patterns("*.safetensors*", "checkpoint-*"))
    tied = Qwen2_5_VLForConditionalGeneration.from_pretrained(source, dtype="auto")
    config = AutoConfig.from_pretrained(source)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    model = Qwen2_5_VLForConditionalGeneration(config).to(tied.dtype)
    with torch.no_grad():
        for name, value in tied.state_dict().items():
            model.state_dict()[name].copy_(value)
    model.generation_config = tied.generation_config
    model.save_pretrained(directory)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="A Qwen2.5-VL of one million parameters.")
    parser.add_argument("source", type=Path, help="conversations (JSON), or with --untied the folder of a tiny model")
    parser.add_argument("directory", type=Path, help="where the model is written")
    parser.add_argument("--untied", action="store_true", help="the output head is a table of its own, as in the 7B and 32B")
    parser.add_argument("--seed", type=int, default=0, help="of new weights")
    options = parser.parse_args(arguments)
    if options.source.is_dir():
        if not options.untied:
            parser.error(f"{options.source} is a model already; --untied makes a copy with untied embeddings")
        untie(options.source, options.directory)
        return
    conversations = json.loads(options.source.read_text(encoding="utf-8"))
    texts = [message["content"] for conversation in conversations for message in conversation["messages"]]
    make_tiny_model(texts, options.directory, seed=options.seed, tied=not options.untied)


if __name__ == "__main__":
    main()
