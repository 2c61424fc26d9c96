"""A model of one million parameters with a tokenizer of its own, for runs on a CPU.

Same architecture, processor and chat template as a real model (`bases.py`), so every framework treats it alike. Embeddings
are tied or not. It sees an image as 16 tokens at most.

    python -m deepeyes.quickstart.tiny_model SOURCE DIRECTORY [--base qwen3_vl] [--untied] [--seed N]

SOURCE is a file of conversations, such as `<quickstart>/data/sft.json`, whose texts the tokenizer learns, or with
`--untied` the folder of a tiny model, whose weights are kept. Untied embeddings are those of the 7B and 32B; frameworks
load them in another way.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from code_sandbox.command_line import CommandParser
from deepeyes.quickstart.bases import BASES, DEFAULT_BASE, Base
from reinforcement_learning.experts import as_published, have_experts

_MAX_VOCABULARY = 1024
# The split pattern of Qwen2's tokenizer: digits one by one, letters with one leading mark, spaces kept apart.
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _train_tokenizer(texts: Iterable[str], base: Base, directory: Path) -> None:
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
        vocab_size=_MAX_VOCABULARY - len(base.chat_format.special_tokens) - len(base.plain_tokens),
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(base.chat_format.special_tokens))
    tokenizer.add_tokens(list(base.plain_tokens))
    tokenizer.save(str(directory / "tokenizer.json"))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def make_tiny_model(
    texts: Iterable[str], directory: Path, *, base: str = DEFAULT_BASE, seed: int = 0, tied: bool = True
) -> None:
    """Train a tokenizer on the texts and write a randomly initialised model beside it.

    Args:
        texts: What the model will read and write.
        directory: Made if it is not there; holds a complete Hugging Face model when this returns.
        base: One of `BASES`.
        seed: Of the weights.
        tied: Whether the output head is the table of embeddings, as in the smallest real models; the others have both.
    """
    import torch
    import transformers

    kind = BASES[base]
    talk = kind.chat_format
    directory.mkdir(parents=True, exist_ok=True)
    _train_tokenizer([*texts, f"system user assistant\n{talk.default_system or ''}"], kind, directory)
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "processor_class": kind.processor_class,
            "model_max_length": 32768,
            "eos_token": talk.reply_end,
            "pad_token": talk.padding,
            "bos_token": None,
            "unk_token": None,
            "additional_special_tokens": [token for token in talk.special_tokens if token != talk.padding],
            "add_prefix_space": False,
            "add_bos_token": False,
            "clean_up_tokenization_spaces": False,
            "errors": "replace",
            "split_special_tokens": False,
            "chat_template": talk.chat_template,
        },
    )
    _write_json(directory / "chat_template.json", {"chat_template": talk.chat_template})
    for name, content in kind.preprocessors().items():
        _write_json(directory / name, content)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    token_id = tokenizer.convert_tokens_to_ids
    config = kind.config(vocabulary=len(tokenizer), token_id=token_id, tied=tied)
    torch.manual_seed(seed)
    model = getattr(transformers, kind.model_class)(config)
    model.generation_config.update(
        eos_token_id=[token_id(talk.reply_end), token_id(talk.padding)], pad_token_id=token_id(talk.padding), do_sample=False
    )
    values = config.to_dict()
    experts = {"state_dict": as_published(model.state_dict(), values), "save_original_format": False}
    model.save_pretrained(directory, **(experts if have_experts(values) else {}))
    transformers.AutoProcessor.from_pretrained(directory)


def untie(source: Path, directory: Path) -> None:
    """Copy a model whose embeddings are tied into one that has them twice; both compute the same until one is trained."""
    import torch
    import transformers

    shutil.copytree(source, directory, ignore=shutil.ignore_patterns("*.safetensors*", "checkpoint-*"))
    tied = transformers.AutoModelForImageTextToText.from_pretrained(source, dtype="auto")
    config = transformers.AutoConfig.from_pretrained(source)
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = False
    model = type(tied)(config).to(tied.dtype)
    with torch.no_grad():
        for name, value in tied.state_dict().items():
            model.state_dict()[name].copy_(value)
    model.generation_config = tied.generation_config
    model.save_pretrained(directory)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = CommandParser(prog="python -m deepeyes.quickstart.tiny_model", description="A model of one million parameters.")
    parser.add_argument("source", type=Path, help="conversations (JSON), or with --untied the folder of a tiny model")
    parser.add_argument("directory", type=Path, help="where the model is written")
    parser.add_argument("--base", choices=sorted(BASES), default=DEFAULT_BASE, help="whose architecture it has")
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
    make_tiny_model(texts, options.directory, base=options.base, seed=options.seed, tied=not options.untied)


if __name__ == "__main__":
    main()
