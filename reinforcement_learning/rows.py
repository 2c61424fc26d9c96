"""One row of a training file, in every form in which people write it, as one plain value.

The data set that feeds the rollouts, the agent loop and the check of a dry run all read rows through `read_row`, so that
they agree about what can be trained on. Imports no torch and no verl.

Forms that are read:
    images          {bytes, path}, bytes, a path (from the folder of the file or an image root), a data URI, a Pillow image,
                    or an image's name in the store that the file lies in (agent/image_library.py); one or a list of
                    them, or null. Columns that `datasets` wrote as `Image()` are {bytes, path} on disk.
    prompt          a list of {role, content}, such a list as JSON, or a text. Content is a text whose `<image>` stand for
                    the row's images in order, or a list of parts; a part may bring its own image.
    reward_model    {ground_truth}, or that as JSON. The gold answer is a text, a number, or a list of which any is accepted.
    extra_info      a struct, a map, JSON, or null; `index` a text or a number. A store's sets call it extra_info_json.

Source of the columns: DeepEyesV2 0373e6e and data/README.md; of `ground_truth: {target: […]}`: verl's data set of Search-R1.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.messages import IMAGE_PLACEHOLDER
from reinforcement_learning.row_errors import RowError
from reinforcement_learning.row_images import image_bytes, images_of, is_list

COLUMNS = ("data_source", "prompt", "images", "reward_model", "extra_info", "extra_info_json")
_ROLES = ("system", "user", "assistant")
_ESCAPED_PLACEHOLDER = "[image]"


@dataclass(frozen=True, kw_only=True, slots=True)
class RowOptions:
    """How the rows of a run are read."""

    prompt_key: str = "prompt"
    image_key: str = "images"
    image_roots: tuple[str, ...] = ()
    """Folders in which relative image paths are looked for, after the folder of the parquet file."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read."""
        renamed = {"prompt": self.prompt_key, "images": self.image_key}
        return tuple(renamed.get(name, name) for name in COLUMNS)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowContent:
    """What a row says."""

    file: str
    row: int
    """Its number in the file, from 0."""
    data_source: str
    messages: tuple[dict[str, str], ...]
    """`{role, content}`; the `<image>` placeholders of all contents together are as many as the images."""
    images: tuple[bytes, ...]
    """Files as they were supplied, in the order of their placeholders; not decoded."""
    gold: tuple[str, ...]
    """Accepted answers, at least one, none of them empty."""
    question: str
    """As the judge reads it."""
    item_id: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    """`extra_info` as it stands."""


def read_row(raw: Mapping[str, Any], *, file: str, row: int, options: RowOptions | None = None) -> RowContent:
    """Read one row.

    Args:
        raw: Values by column, as pyarrow or `datasets` hand them over.
        file: For relative image paths, and for messages.
        row: Its number in the file, from 0.
        options: Names of columns and folders of images.

    Raises:
        RowError: The row cannot be trained on; the message says why and what to do.
    """
    options = options or RowOptions()
    try:
        opening = _Opening(images_of(raw.get(options.image_key)), _folders(file, options.image_roots))
        messages = opening.read(raw.get(options.prompt_key))
        extra = _mapping(raw.get("extra_info"), "extra_info") or _mapping(raw.get("extra_info_json"), "extra_info_json")
        return RowContent(
            file=file,
            row=row,
            data_source=_data_source(raw.get("data_source")),
            messages=messages,
            images=tuple(opening.images),
            gold=_gold(_mapping(raw.get("reward_model"), "reward_model")),
            question=_clean(str(extra.get("question") or "")) or _last_question(messages),
            item_id=_item_id(extra.get("index"), file, row),
            extra=extra,
        )
    except RowError as error:
        raise RowError(error.kind, error.detail, file=file, row=row) from error


def _folders(file: str, roots: Sequence[str]) -> tuple[Path, ...]:
    return (_folder_of(Path(file).absolute()), *(Path(root) for root in roots))


@functools.lru_cache(maxsize=64)
def _folder_of(file: Path) -> Path:
    """Asked for each row; of a path with links it is a question to the disk."""
    return file.resolve().parent


def _clean(text: str) -> str:
    """Half surrogates, which JSON may hold, can neither be tokenised nor sent."""
    return text.encode("utf-8", "replace").decode()


def _data_source(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RowError("no data source", f"data_source is {value!r}; expected the name of a reward, such as 'perception'")
    return value


def _item_id(index: Any, file: str, row: int) -> str:
    if isinstance(index, float) and index.is_integer():
        index = int(index)
    return f"{Path(file).stem}:{row}" if index is None or index == "" else _clean(str(index))


def _mapping(value: Any, column: str) -> dict[str, Any]:
    """A struct, a map (a list of pairs), JSON text, or null."""
    if value is None or value == "":
        return {}
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RowError(
                f"{column} is no JSON", f"it starts {value[:60]!r}; write a struct, or JSON of an object"
            ) from error
    if isinstance(value, list) and all(_is_pair(item) for item in value):
        value = dict(value)
    if not isinstance(value, Mapping):
        raise RowError(
            f"{column} has a wrong type", f"it is a {type(value).__name__}; expected a struct, or JSON of an object"
        )
    return {str(name): item for name, item in value.items()}


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], str)


# ---- gold ---------------------------------------------------------------------------------------------------------------


def _gold(reward_model: Mapping[str, Any]) -> tuple[str, ...]:
    if "ground_truth" not in reward_model:
        there = ", ".join(sorted(reward_model)) or "nothing"
        raise RowError("no gold answer", f"reward_model has {there}; expected ground_truth")
    return accepted_answers(reward_model["ground_truth"])


def accepted_answers(value: Any) -> tuple[str, ...]:
    """The gold answers that a value stands for; any of them is right.

    Raises:
        RowError: Null, empty, or neither text nor number.
    """
    if isinstance(value, Mapping) and value.get("target") is not None:
        value = value["target"]
    if is_list(value):
        answers = tuple(_answer(item) for item in value)
        if not answers:
            raise RowError("gold is empty", "ground_truth is an empty list; expected at least one answer")
        return tuple(dict.fromkeys(answers))
    return (_answer(value),)


def _answer(value: Any) -> str:
    if hasattr(value, "item") and type(value).__module__ == "numpy":
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise RowError("gold is null", "ground_truth is or holds null; expected a text, a number, or a list of them")
    if isinstance(value, str):
        text = _clean(value).strip()
        if not text:
            raise RowError("gold is empty", "ground_truth is or holds an empty text; expected an answer")
        return text
    if isinstance(value, float):
        if math.isinf(value):
            raise RowError("gold is no answer", f"ground_truth is {value}; expected a finite number")
        # pandas makes whole numbers fractional as soon as one row of the column is null.
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    if isinstance(value, bool | int) or type(value).__name__ == "Decimal":
        return str(value)
    raise RowError(
        "gold has a wrong type",
        f"ground_truth is or holds a {type(value).__name__}; expected a text, a number, or a list of them",
    )


# ---- prompt -------------------------------------------------------------------------------------------------------------


class _Opening:
    """Walks over the messages of a row and takes its images in the order of their placeholders."""

    def __init__(self, given: list[Any], folders: tuple[Path, ...]) -> None:
        self.images: list[bytes] = []
        self._given = given
        self._taken = 0
        self._needed = 0
        self._folders = folders

    def read(self, prompt: Any) -> tuple[dict[str, str], ...]:
        """The messages.

        Raises:
            RowError: No messages, a message that is none, or placeholders that are not as many as the images.
        """
        rows = _message_rows(prompt)
        messages = tuple(self._message(number, row) for number, row in enumerate(rows))
        if self._needed != len(self._given):
            raise RowError(
                "placeholders differ from images",
                f"the messages have {self._needed} {IMAGE_PLACEHOLDER} for {len(self._given)} image(s); they must be equal. "
                f"Where {IMAGE_PLACEHOLDER} is only spoken of, write {_ESCAPED_PLACEHOLDER}, or give content as a list of "
                "parts",
            )
        if messages[-1]["role"] != "user":
            raise RowError(
                "prompt has no question", f"its last message is the {messages[-1]['role']}'s; expected the user's"
            )
        if not self.images and not messages[-1]["content"].strip():
            raise RowError("prompt has no question", "its last message is empty")
        return messages

    def _message(self, number: int, row: Any) -> dict[str, str]:
        if not isinstance(row, Mapping):
            raise RowError(
                "message has a wrong type", f"message {number} is a {type(row).__name__}; expected role and content"
            )
        role: Any = row.get("role")
        content: Any = row.get("content")
        if role not in _ROLES:
            raise RowError("unknown role", f"message {number} has role {role!r}; expected one of {', '.join(_ROLES)}")
        if isinstance(content, str):
            for _ in range(content.count(IMAGE_PLACEHOLDER)):
                self._take()
            return {"role": role, "content": _clean(content)}
        if is_list(content):
            return {"role": role, "content": "".join(self._part(number, part) for part in content)}
        raise RowError(
            "message has no text",
            f"content of message {number} is {type(content).__name__}; expected a text or a list of parts",
        )

    def _part(self, number: int, part: Any) -> str:
        if isinstance(part, str):
            return _quoted(part)
        if not isinstance(part, Mapping):
            raise RowError(
                "message has no text", f"message {number} has a part of type {type(part).__name__}; expected text or image"
            )
        kind = part.get("type") or ("text" if part.get("text") is not None else "image")
        if kind == "text":
            return _quoted(str(part.get("text") or ""))
        if kind not in ("image", "image_url"):
            raise RowError("unknown part", f"message {number} has a part of type {kind!r}; expected text or image")
        own = next((part[name] for name in ("image", "image_url", "bytes", "path", "url") if part.get(name)), None)
        if isinstance(own, Mapping):
            own = own.get("url") or own
        if own is None:
            self._take()
        else:
            self.images.append(image_bytes(own, self._folders))
        return IMAGE_PLACEHOLDER

    def _take(self) -> None:
        """The next image of the row's own column; how many are missing is said at the end."""
        self._needed += 1
        if self._taken < len(self._given):
            number = self._taken
            self._taken += 1
            try:
                self.images.append(image_bytes(self._given[number], self._folders))
            except RowError as error:
                raise RowError(error.kind, f"image {number + 1} of {len(self._given)}: {error.detail}") from error


def _quoted(text: str) -> str:
    """The text of a part stands for itself: a placeholder in it is only spoken of."""
    return _clean(text).replace(IMAGE_PLACEHOLDER, _ESCAPED_PLACEHOLDER)


def _message_rows(prompt: Any) -> list[Any]:
    if isinstance(prompt, str):
        prompt = _rows_of_text(prompt)
    if isinstance(prompt, Mapping):
        prompt = [prompt]
    if not is_list(prompt):
        kind = "null" if prompt is None else f"a {type(prompt).__name__}"
        raise RowError("no prompt", f"it is {kind}; expected a list of {{role, content}}, or a text")
    rows = list(prompt)
    if not rows:
        raise RowError("no prompt", "it is empty; expected a list of {role, content}, or a text")
    return rows


def _rows_of_text(text: str) -> list[Any]:
    """Messages written as JSON, or the text as one message."""
    if text.lstrip().startswith("[{"):
        try:
            rows = json.loads(text)
        except ValueError:
            rows = None
        if isinstance(rows, list) and all(isinstance(row, dict) and "role" in row for row in rows):
            return rows
    return [{"role": "user", "content": text}] if text.strip() else []


def _last_question(messages: Sequence[Mapping[str, str]]) -> str:
    return messages[-1]["content"].replace(IMAGE_PLACEHOLDER, "").strip()
