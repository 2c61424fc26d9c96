"""What a family of models wants to be told: one file each, found by its name.

A family's file has `FORMATS`, its `ChatFormat`s: how a conversation is written down, which tokens stand for an image and how
large images are shown, where a reply ends. Everything else of ours, from the dry run to the tokens that are trained on, asks
here. How to add one: docs/adding_a_family.md.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.episode import Episode
from agent.images import ImageRule
from agent.loading import load_plugin, plugin_names

PACKAGE = "agent.chat_formats"
HOW_TO_ADD = "docs/adding_a_family.md"
THINK = "<think>"

Turns = Sequence[tuple[str, str]]
"""(role, content) of each turn; an image in a content is written out as `ChatFormat.image` has it."""


class UnknownFamily(LookupError):
    """No family here carries that model; the message lists those that there are."""


@dataclass(frozen=True, kw_only=True)
class ChatFormat(ABC):
    """How one kind of model is talked to; a family has several where its models differ, such as Instruct and Thinking."""

    name: str
    """As people call the models, such as Qwen3-VL Thinking."""
    model_types: tuple[str, ...]
    """`model_type` of the config.json of these models."""
    hub_names: str
    """A pattern of their names, for a model that cannot be looked at; letters of both cases match."""
    llama_factory_template: str
    """The `template` with which LLaMA-Factory writes the same conversation."""
    reply_end: str
    """The token with which the model ends a reply, and that is put there where it was stopped before."""
    padding: str
    """The token that fills up a batch."""
    special_tokens: tuple[str, ...]
    """All special tokens of the tokenizer, in its order; a foreign text that holds one is escaped."""
    never_sampled: tuple[str, ...]
    """Of those, the ones that a reply never holds: an image's tokens without an image would end the training."""
    image_start: str
    image_pad: str
    """Stands once for each token of an image."""
    image_end: str
    video_pad: str
    """As `image_pad`; we show no films."""
    patch_px: int
    merge: int = 2
    """Patches a side that become one token."""
    min_pixels: int
    """Width times height of a shown image, at least."""
    max_pixels: int
    """Width times height of a shown image, at most."""
    default_system: str | None = None
    """What the models' own template puts first in a conversation without a system message."""
    primer: str = ""
    """What the models' own template begins every reply with, such as an opened thought."""
    chat_template: str
    """This format as a Jinja template, for servers; replies are kept in it as they were sampled."""

    @abstractmethod
    def opening(self, turns: Turns) -> str:
        """All that stands before the first reply; the primer is not part of it.

        Args:
            turns: A system message, if there is one, and what the user says.
        """

    @abstractmethod
    def after_reply(self, turns: Turns) -> str:
        """All that stands between `reply_end` of one reply and the next reply; the primer is not part of it.

        Args:
            turns: What is new since that reply.
        """

    def image(self, num_tokens: int) -> str:
        """An image in a content."""
        return self.image_start + self.image_pad * num_tokens + self.image_end

    @property
    def factor_px(self) -> int:
        """Sides of a shown image are multiples of it."""
        return self.patch_px * self.merge

    def image_rule(self, image_max_pixels: int | None = None, processor: ImageRule | None = None) -> ImageRule:
        """How large images are shown.

        Args:
            image_max_pixels: Of a recipe or a command; None leaves it to the model.
            processor: `ImageRule.of_processor` of the model's own; None takes what is usual in the family.

        Raises:
            ValueError: The processor is another family's, or the limit is under what is shown at least.
        """
        own = processor or ImageRule(self.factor_px, self.min_pixels, self.max_pixels)
        if own.factor_px != self.factor_px:
            raise ValueError(
                f"the model's processor cuts images into squares of {own.factor_px} px, one to a token; those of "
                f"{self.name} have {self.factor_px} px. Is its preprocessor_config.json of another model?"
            )
        return own.limited(image_max_pixels)


@functools.cache
def families() -> dict[str, tuple[ChatFormat, ...]]:
    """All formats by the name of their family's file."""
    return {name: tuple(load_plugin(PACKAGE, name).FORMATS) for name in plugin_names(PACKAGE)}


def all_formats() -> list[ChatFormat]:
    """All formats of all families."""
    return [chat_format for formats in families().values() for chat_format in formats]


def described() -> str:
    """The formats that there are, and where it is written how to add one; for messages."""
    known = ", ".join(f"{chat_format.name} ({', '.join(chat_format.model_types)})" for chat_format in all_formats())
    return f"Families supported: {known}. How to add one: {HOW_TO_ADD}"


def format_of(model_type: str | None, chat_template: str = "") -> ChatFormat:
    """The format of a kind of model.

    Args:
        model_type: Of its config.json.
        chat_template: The model's own, in Jinja, which tells models that think first from those that do not; empty takes
            the first of the family.

    Raises:
        UnknownFamily: Nobody here carries that type.
    """
    fitting = [chat_format for chat_format in all_formats() if model_type in chat_format.model_types]
    if not fitting:
        raise UnknownFamily(f"{model_type!r} is no model_type that is known. {described()}")
    thinks = begins_with_a_thought(chat_template)
    return next((chat_format for chat_format in fitting if (THINK in chat_format.primer) == thinks), fitting[0])


def begins_with_a_thought(chat_template: str) -> bool:
    """Whether a Jinja template opens a thought where the model is to write."""
    _, asked, behind = chat_template.rpartition("add_generation_prompt")
    return bool(asked) and THINK in behind


def format_of_folder(folder: Path) -> ChatFormat:
    """The format of a model's folder, from its config.json and its chat template.

    Raises:
        UnknownFamily: Nobody here carries that type.
        OSError: There is no config.json.
        ValueError: It is no JSON.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return format_of(config.get("model_type") if isinstance(config, dict) else None, chat_template_of(folder))


def chat_template_of(folder: Path) -> str:
    """The Jinja template of a model's folder, in whichever file it stands; empty if there is none."""
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8")).get("chat_template")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(found, str):
            return found
    return ""


def format_of_hub_name(name: str) -> ChatFormat | None:
    """What a name on the hub promises; None if it promises nothing that is known here."""
    fitting = [chat_format for chat_format in all_formats() if re.search(chat_format.hub_names, name, re.IGNORECASE)]
    thinks = "thinking" in name.lower()
    return next((chat_format for chat_format in fitting if bool(chat_format.primer) == thinks), next(iter(fitting), None))


def image_rule_for(model: str, image_max_pixels: int | None) -> ImageRule:
    """How large images are shown to a model of which we know the folder, or only what its server calls it.

    Args:
        model: A folder, whose own processor has the last word; a name on the hub; or any other name, which tells nothing and
            is taken for a Qwen2.5-VL.
        image_max_pixels: Of a recipe or a command; None leaves it to the model.

    Raises:
        ValueError: The limit is under what is shown at least.
    """
    chat_format = _format_for(model)
    return chat_format.image_rule(image_max_pixels, _processor_rule(Path(model), chat_format))


def begins_replies(model: str) -> bool:
    """Whether a model's own template begins each reply, so that its server is not to be given another beginning.

    Args:
        model: As for `image_rule_for`.
    """
    return bool(_format_for(model).primer)


def _format_for(model: str) -> ChatFormat:
    with contextlib.suppress(UnknownFamily, OSError, ValueError):
        return format_of_folder(Path(model))
    return format_of_hub_name(model) or format_of("qwen2_5_vl")


def _processor_rule(folder: Path, chat_format: ChatFormat) -> ImageRule | None:
    """How the processor of a model's folder resizes, in whichever file and form it stands; None if there is none."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8"))
            found = found.get("image_processor", found)
            patch_px, merge = found.get("patch_size", chat_format.patch_px), found.get("merge_size", chat_format.merge)
            size = found.get("size") or {}
            least = size.get("shortest_edge") or found.get("min_pixels") or chat_format.min_pixels
            most = size.get("longest_edge") or found.get("max_pixels") or chat_format.max_pixels
            return ImageRule(int(patch_px) * int(merge), int(least), int(most))
        except (OSError, ValueError, TypeError, AttributeError):
            continue
    return None


def format_of_template(llama_factory_template: str) -> ChatFormat:
    """The format that a `template` of LLaMA-Factory writes.

    Raises:
        UnknownFamily: None does; the message lists those that do.
    """
    for chat_format in all_formats():
        if chat_format.llama_factory_template == llama_factory_template:
            return chat_format
    known = ", ".join(f"{chat_format.llama_factory_template} ({chat_format.name})" for chat_format in all_formats())
    raise UnknownFamily(
        f"template is {llama_factory_template!r}; conversations are written and checked for {known}. "
        f"How to add a family: {HOW_TO_ADD}"
    )


def without_reply_end(text: str) -> str:
    """A reply without the token that ends it, for servers that do not say which family they serve."""
    for chat_format in all_formats():
        text = text.removesuffix(chat_format.reply_end)
    return text


def transcript(episode: Episode, chat_format: ChatFormat) -> str:
    """The conversation as the model saw it, `<image>` for each image, made again from a record."""
    text = chat_format.opening([(message.role, message.text) for message in episode.opening])
    observed: list[tuple[str, str]] = []
    for number, turn in enumerate(episode.turns):
        text += (chat_format.after_reply(observed) if number else "") + turn.reply.primer + turn.reply.text
        text += chat_format.reply_end
        observed = [] if turn.observation is None else [(turn.observation.role, turn.observation.text)]
    return text
