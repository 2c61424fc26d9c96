"""Write a checked copy of the conversations, their images as the model sees them, and LLaMA-Factory's catalogue."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.files import write_whole
from agent.image_paths import places_by_ending
from agent.images import ImageRule
from agent.json_items import json_items
from agent.recipes import RecipeError
from cold_start import examination
from cold_start.check_data import CleanConversation, Problem, clean
from cold_start.examination import Encoder, Examination, Source
from cold_start.images import write_images
from cold_start.llama_factory import CATALOGUE, DATASET
from cold_start.recipe import DataSettings

_PREPARED = "prepared"
"""Entry of dataset_info.json, which LLaMA-Factory does not look at: what the copy beside it was made from."""


@dataclass(frozen=True, slots=True)
class Examined:
    """All conversations of a recipe with the examination of each."""

    sources: list[Source]
    examinations: list[list[Examination]]
    fingerprint: str
    """Of everything that the examinations depend on."""

    def kept(self) -> Iterator[CleanConversation]:
        """The conversations that are trained on, as they are trained on, in order."""
        for source, found in zip(self.sources, self.examinations, strict=True):
            for row, one in zip(source.conversations, found, strict=True):
                if not one.reasons:
                    yield clean(row, source.images_directory)

    @property
    def problems(self) -> list[Problem]:
        """What was wrong with the others."""
        return [
            Problem(f"{source.path.name}[{number}]", "; ".join(one.reasons))
            for source, found in zip(self.sources, self.examinations, strict=True)
            for number, one in enumerate(found)
            if one.reasons
        ]

    @property
    def copied_pixels(self) -> int:
        """The pixels of the images that are written anew; one that several conversations share counts for each."""
        return sum(one.copied_pixels for found in self.examinations for one in found if not one.reasons)

    @property
    def num_tokens(self) -> list[int]:
        """The tokens of the conversations that are kept."""
        return [one.num_tokens for found in self.examinations for one in found if not one.reasons]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What stands in a prepared copy."""

    fingerprint: str
    num_kept: int
    num_left_out: int
    num_escaped: int
    """Messages in which a special token was escaped."""
    num_images: int
    """Images that were written anew, because the model is shown them otherwise than they are."""
    content_sha256: str
    """Of the conversations that are trained on, their images by name: the same wherever the copy lies."""


def find_files(patterns: Sequence[str]) -> list[Path]:
    """Expand patterns.

    Raises:
        RecipeError: A pattern matches nothing; all such patterns are named.
    """
    files: list[Path] = []
    missing = []
    for pattern in patterns:
        matches = sorted(Path(name) for name in glob.glob(pattern))  # noqa: PTH207 - the pattern may be absolute
        files += matches
        missing += [] if matches else [repr(pattern)]
    if missing:
        raise RecipeError(f"no data file matches {', '.join(missing)}; see data/README.md for where to get them")
    return files


def read_conversations(path: Path) -> tuple[list[Any], str, tuple[str, ...]]:
    """Read one file, in any form in which conversations are published.

    Returns:
        Its conversations, the sha256 of its bytes, and what a strict reader would have stumbled over.

    Raises:
        RecipeError: It holds no conversations, or one that is no JSON; the message gives the place.
    """
    try:
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            content = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError):
            conversations, mended = _as_published(path)
            return conversations, sha256, mended
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error})") from error
    if not isinstance(content, list):
        raise RecipeError(f"{path} holds a {type(content).__name__}; expected a list of conversations")
    return content, sha256, ()


def _as_published(path: Path) -> tuple[list[Any], tuple[str, ...]]:
    """(conversations, what was mended) of a file that is no strict JSON."""
    found: list[Any] = []
    mended: dict[str, None] = {}
    for item in json_items(path):
        if item.problem:
            raise RecipeError(
                f"{path} cannot be read as JSON: element {item.number}: {item.problem}; get the file again, or let "
                "`deepeyes data prepare sft` leave such elements out"
            )
        found.append(item.value)
        mended |= dict.fromkeys(item.mended)
    return found, tuple(mended)


def _find_images(conversations: Sequence[Any], path: Path, directory: Path) -> list[str]:
    """Put in place of paths that lead nowhere those of the images that they end with; says how many.

    Args:
        conversations: Changed.
        path: Of their file.
        directory: Where their paths start; it, the file's folder and the one above that are looked through.
    """
    folders, found = tuple(dict.fromkeys((directory, path.parent, path.parent.parent))), 0
    for conversation in conversations:
        images: Any = conversation.get("images") if isinstance(conversation, dict) else None
        for number, image in enumerate(images if isinstance(images, list) else ()):
            if not isinstance(image, str) or not image or "\0" in image or (directory / image).is_file():
                continue
            place = next((one for one in places_by_ending(image, folders) if one.is_file()), None)
            if place is not None:
                images[number] = str(place)
                found += 1
    return [f"{found:,} paths of images that are not there, which were found by their ends"] if found else []


def read_sources(settings: DataSettings) -> list[Source]:
    """Read all files of a recipe.

    Raises:
        RecipeError: A file is missing or broken, or they hold no conversation; every such file is named.
    """
    sources: list[Source] = []
    broken: list[str] = []
    for path in find_files(settings.files):
        try:
            conversations, sha256, mended = read_conversations(path)
        except RecipeError as error:
            broken.append(str(error))
        else:
            directory = Path(settings.images_directory or path.parent).resolve()
            found = _find_images(conversations, path.resolve(), directory)
            sources.append(Source(path, sha256, conversations, directory, (*mended, *found)))
    if broken:
        raise RecipeError("\n".join(broken))
    if not any(source.conversations for source in sources):
        raise RecipeError(f"{', '.join(settings.files)} hold no conversation")
    return sources


def examine_data(
    settings: DataSettings, llamafactory: Mapping[str, Any], *, load_encoder: Callable[[], Encoder], num_workers: int = 1
) -> Examined:
    """Read and examine everything; examinations of an earlier start with the same files, images and settings are taken over.

    Args:
        settings: Which conversations.
        llamafactory: LLaMA-Factory's settings.
        load_encoder: Called when there is something to examine.
        num_workers: Processes.

    Raises:
        RecipeError: A file cannot be read.
    """
    sources = read_sources(settings)
    key = examination.fingerprint(sources, llamafactory)
    found = examination.remembered(key)
    if found is None or [len(rows) for rows in found] != [len(source.conversations) for source in sources]:
        found = examination.examine_all(sources, load_encoder(), num_workers)
        examination.remember(key, found)
    return Examined(sources, found, key)


def write_dropped(problems: Sequence[Problem], path: Path) -> None:
    """List what is left out: one line of JSON for each conversation, `source` and `reason`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems), durable=True)


def check_usable(examined: Examined, on_bad: str, dropped: Path) -> None:
    """Refuse data of which nothing is left, or of which something is left out where the recipe says `on_bad: stop`.

    Raises:
        RecipeError: With the first reason.
    """
    problems = examined.problems
    if problems and (on_bad == "stop" or not examined.num_tokens):
        raise RecipeError(
            f"{len(problems)} conversations cannot be trained on, the first: {problems[0].source}: {problems[0].reason}. "
            f"All of them are in {dropped}"
        )


def prepared_copy(directory: Path) -> Prepared | None:
    """What the copy in a folder was made from; None if there is no whole copy."""
    try:
        entry = json.loads((directory / "dataset_info.json").read_text(encoding="utf-8"))[_PREPARED]
        prepared = Prepared(**entry)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return prepared if (directory / f"{DATASET}.json").is_file() else None


def write_copy(examined: Examined, directory: Path, rule: ImageRule) -> Prepared:
    """Write `images/`, `dropped.jsonl`, `deepeyes.json` and last `dataset_info.json`, each file renamed into place.

    The sources stay. Several nodes may do this at once on a shared disk: from the same data they write the same bytes, a
    reader sees a whole file at every moment, and a copy that is already there is left alone.

    Args:
        examined: The conversations.
        directory: Made if missing.
        rule: What the model sees of an image.

    Raises:
        RecipeError: An image cannot be read any more.
        OSError: The disk is full.
    """
    there = prepared_copy(directory)
    if there is not None and there.fingerprint == examined.fingerprint:
        return there
    directory.mkdir(parents=True, exist_ok=True)
    write_dropped(examined.problems, directory / "dropped.jsonl")
    num_escaped = sum(conversation.num_escaped for conversation in examined.kept())
    paths = (path for conversation in examined.kept() for path in conversation.images)
    copies = write_images(paths, directory / "images", rule)
    write_whole(directory / f"{DATASET}.json", _json_list(examined.kept(), copies), durable=True)
    prepared = Prepared(
        fingerprint=examined.fingerprint,
        num_kept=len(examined.num_tokens),
        num_left_out=len(examined.problems),
        num_escaped=num_escaped,
        num_images=sum(source != copy for source, copy in copies.items()),
        content_sha256=content_sha256(examined),
    )
    catalogue = json.dumps(CATALOGUE | {_PREPARED: asdict(prepared)}, indent=1)
    write_whole(directory / "dataset_info.json", catalogue, durable=True)
    return prepared


def _json_list(conversations: Iterator[CleanConversation], copies: Mapping[str, str]) -> Iterator[str]:
    separator = "["
    for conversation in conversations:
        row = {"messages": conversation.messages, "images": [copies[path] for path in conversation.images]}
        yield separator + json.dumps(row, ensure_ascii=False)
        separator = ",\n"
    yield "]\n"


def content_sha256(examined: Examined) -> str:
    """A hash of what is trained on, which stays the same when the data is moved to another folder."""
    digest = hashlib.sha256()
    for source, found in zip(examined.sources, examined.examinations, strict=True):
        for row, one in zip(source.conversations, found, strict=True):
            if not one.reasons:
                messages = [(message["role"], message["content"]) for message in row["messages"]]
                images = [Path(image).name for image in row.get("images") or []]
                digest.update(json.dumps([messages, images]).encode())
    return digest.hexdigest()
