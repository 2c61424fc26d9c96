"""LLaMA-Factory's own code, asked before it is started: its arguments, its converter, its template, its image sizes.

Everything here runs on a CPU: pixels are decoded to see that a file is whole, but the processor works on sizes, which are
those of the prepared copies (`cold_start.images`). Source of what is called: LLaMA-Factory 0.9.5, hparams/parser.py,
data/{converter,mm_plugin,template}.py, data/processor/supervised.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from agent.chat_formats import format_of_template
from agent.images import ImageFile, ImageRule
from cold_start.check_data import CleanConversation

DATASET = "deepeyes"
CATALOGUE: dict[str, Any] = {
    DATASET: {
        "file_name": f"{DATASET}.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    }
}
"""LLaMA-Factory's dataset_info.json for a prepared copy."""
_NO_CUTOFF = 1 << 40
# Settings that only a GPU takes; everything else is judged without one.
_GPU_ONLY = ("deepspeed", "fp16", "tf32", "pure_bf16", "resume_from_checkpoint", "fsdp", "fsdp_config", "torch_compile")


@contextlib.contextmanager
def without_gpus() -> Iterator[None]:
    """Let LLaMA-Factory and torch see neither GPUs nor a launcher, so that checking starts no CUDA and no process group."""
    hidden = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    before = dict(os.environ)
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "LLAMAFACTORY_VERBOSITY": "ERROR", "TOKENIZERS_PARALLELISM": "false"}
    for name in hidden:
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _quiet() -> None:
    # LLaMA-Factory prints whole conversations as warnings; ours say the same in a line.
    logging.getLogger("llamafactory").setLevel(logging.ERROR)
    import transformers

    transformers.utils.logging.set_verbosity_error()


def argument_problems(settings: Mapping[str, Any]) -> list[str]:
    """What LLaMA-Factory's argument parser has against these settings: unknown keys, wrong types, what cannot go together.

    Args:
        settings: `llamafactory:` of a recipe.
    """
    with without_gpus():
        from llamafactory.hparams import parser as hparams
        from transformers import HfArgumentParser

        _quiet()
        parser = HfArgumentParser(hparams._TRAIN_ARGS)
        problems = []
        for key, value in settings.items():
            if (problem := _key_problem(parser, key, value)) is not None:
                problems.append(problem)
        if not problems:
            try:
                parsed_arguments(settings)
            except Exception as error:  # noqa: BLE001 - whatever it raises here, it would raise after the start
                problems.append(f"LLaMA-Factory refuses the settings: {type(error).__name__}: {_short(str(error))}")
        return problems


def _key_problem(parser: Any, key: str, value: Any) -> str | None:
    action = parser._option_string_actions.get(f"--{key}")
    if action is None:
        known = [name.removeprefix("--") for name in parser._option_string_actions]
        close = difflib.get_close_matches(key, known, n=3)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        return f"LLaMA-Factory has no setting {key!r}{hint}"
    if value is None or isinstance(value, dict | list | tuple):
        return None
    try:
        converted = action.type(str(value)) if callable(action.type) else str(value)
    except Exception as error:  # noqa: BLE001 - argparse types raise what they like
        expected = getattr(action.type, "__name__", str(action.type))
        return f"{key} is {value!r}; LLaMA-Factory expects {expected} ({_short(str(error))})"
    choices = [getattr(choice, "value", choice) for choice in action.choices or []]
    if choices and str(getattr(converted, "value", converted)) not in map(str, choices):
        return f"{key} is {value!r}; LLaMA-Factory knows {', '.join(map(str, choices))}"
    return None


def parsed_arguments(settings: Mapping[str, Any]) -> tuple[Any, Any]:
    """LLaMA-Factory's model and data arguments, as parsed on a machine without GPUs.

    Raises:
        Exception: Whatever LLaMA-Factory raises for settings that it refuses.
    """
    from llamafactory.hparams import get_train_args

    usable = {key: value for key, value in settings.items() if key not in _GPU_ONLY}
    usable |= {"dataset": DATASET, "dataset_dir": CATALOGUE, "media_dir": os.sep}
    usable |= {"use_cpu": True, "overwrite_output_dir": True, "report_to": "none"}
    with warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        model_args, data_args, *_ = get_train_args(usable)
    return model_args, data_args


@dataclass(frozen=True, slots=True)
class Encoded:
    """What becomes of a conversation."""

    num_tokens: int = 0
    """Without a cutoff."""
    problem: str | None = None
    """Why it cannot be trained on."""
    copied_pixels: int = 0
    """Of those of its images that are written anew."""


class Pipeline:
    """The way of a conversation through LLaMA-Factory, up to token ids.

    Args:
        settings: `llamafactory:` of a recipe that has no `argument_problems`.

    Raises:
        OSError: The tokenizer or processor cannot be loaded.
        ValueError: The template does not fit the model, or no image can be shown within `image_max_pixels`.
        UnknownFamily: Nobody here knows the template.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        with without_gpus():
            from llamafactory.data import get_template_and_fix_tokenizer
            from llamafactory.data.converter import SharegptDatasetConverter
            from llamafactory.data.parser import get_dataset_list
            from llamafactory.data.processor import SupervisedDatasetProcessor
            from llamafactory.model import load_tokenizer

            _quiet()
            model_args, data_args = parsed_arguments(settings)
            _quiet()
            module = load_tokenizer(model_args)
            template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
        if module["processor"] is None:
            raise OSError(f"{settings['model_name_or_path']} has no processor (preprocessor_config.json and chat template)")
        processor = _SizingProcessor(module["processor"])
        self.cutoff_len = int(data_args.cutoff_len)
        self.rule = format_of_template(str(settings["template"])).image_rule(
            int(settings["image_max_pixels"]), ImageRule.of_processor(processor.image_processor)
        )
        self._converter = SharegptDatasetConverter(get_dataset_list([DATASET], CATALOGUE)[0], data_args)
        self._plugin = template.mm_plugin
        self._processor = processor
        self._image_token_id = module["tokenizer"].convert_tokens_to_ids(self._plugin.image_token)
        self._cutting, self._whole = (
            SupervisedDatasetProcessor(
                template=template,
                tokenizer=module["tokenizer"],
                processor=processor,
                data_args=dataclasses.replace(data_args, cutoff_len=cutoff_len, media_dir=os.sep),
            )
            for cutoff_len in (self.cutoff_len, _NO_CUTOFF)
        )

    def encode(self, conversation: CleanConversation) -> Encoded:
        """What LLaMA-Factory makes of a conversation; whatever it raises is the conversation's problem, never ours."""
        images: list[Image.Image] = []
        copied_pixels = 0
        for path in conversation.images:
            try:
                image = ImageFile(Path(path).read_bytes())
                image.check()
            except (OSError, ValueError) as error:
                return Encoded(problem=f"image {path} cannot be read: {_short(str(error) or type(error).__name__)}")
            size = self.rule.size(*image.size)
            copied_pixels += 0 if self.rule.keeps(image) else size[0] * size[1]
            images.append(_Sized(size))
        try:
            return dataclasses.replace(self._encode(conversation, images), copied_pixels=copied_pixels)
        except Exception as error:  # noqa: BLE001 - it would end the training of all other conversations
            return Encoded(problem=f"LLaMA-Factory raises {type(error).__name__}: {_short(str(error))}")

    def _encode(self, conversation: CleanConversation, images: list[Image.Image]) -> Encoded:
        row = self._converter({"messages": conversation.messages, "images": conversation.images})
        row["_images"] = images
        batch = {name: [value] for name, value in row.items()}
        tokens = self._whole.preprocess_dataset(batch).get("input_ids")
        if not tokens:
            return Encoded(problem="LLaMA-Factory drops it with only a warning")
        num_tokens, expected = len(tokens[0]), self._num_tokens(images) if images else 0
        if tokens[0].count(self._image_token_id) != expected:
            found = tokens[0].count(self._image_token_id)
            return Encoded(num_tokens, f"{found} image tokens for images of {expected}, which ends training")
        if num_tokens > self.cutoff_len:
            (cut,) = self._cutting.preprocess_dataset(batch)["input_ids"]
            ends = cut.count(self._image_token_id) != expected
            where = "inside an image, which ends training" if ends else "short"
            return Encoded(num_tokens, f"{num_tokens:,} tokens; cutoff_len {self.cutoff_len:,} would cut it {where}")
        return Encoded(num_tokens)

    def _num_tokens(self, images: list[Image.Image]) -> int:
        grids = self._plugin._get_mm_inputs(images, [], [], self._processor)["image_grid_thw"]
        return sum(int(grid.prod()) for grid in grids) // int(self._processor.image_processor.merge_size) ** 2


class _Sized(Image.Image):
    """An RGB image of which only the size is known."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._size, self._mode = size, "RGB"

    def resize(self, size: Any, *_: Any, **__: Any) -> Image.Image:
        raise ValueError(f"it would resize an image from {self.size} to {size}, which is at its size already")


class _SizingProcessor:
    """The model's processor with an image processor that makes no pixels."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self.image_processor = _SizingImageProcessor(processor.image_processor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)


class _SizingImageProcessor:
    def __init__(self, image_processor: Any) -> None:
        self._image_processor = image_processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image_processor, name)

    def __call__(self, images: list[Image.Image], **_: Any) -> dict[str, Any]:
        import torch

        patches = [self._image_processor.get_number_of_image_patches(i.height, i.width, {}) for i in images]
        return {"image_grid_thw": torch.tensor([[1, 1, number] for number in patches])}


def _short(text: str, limit: int = 240) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}…"
