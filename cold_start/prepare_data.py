"""Write a checked copy of the conversations with absolute image paths, and LLaMA-Factory's catalogue beside it."""

from __future__ import annotations

import glob
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.recipes import RecipeError
from cold_start.check_data import Problem, check_conversations
from cold_start.recipe import DataSettings

DATASET = "deepeyes"
_CATALOGUE = {
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


def find_files(patterns: Sequence[str]) -> list[Path]:
    """Expand patterns.

    Raises:
        RecipeError: A pattern matches nothing.
    """
    files: list[Path] = []
    for pattern in patterns:
        matches = sorted(Path(name) for name in glob.glob(pattern))  # noqa: PTH207 - the pattern may be absolute
        if not matches:
            raise RecipeError(f"no data file matches {pattern!r}; see data/README.md for where to get them")
        files += matches
    return files


def read_conversations(path: Path) -> list[Any]:
    """Read one file.

    Raises:
        RecipeError: It is no JSON list; the message gives the place.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise RecipeError(f"{path} cannot be read as JSON ({error}); was its download cut off?") from error
    if not isinstance(content, list):
        raise RecipeError(f"{path} holds a {type(content).__name__}; expected a list of conversations")
    return content


def prepare_data(
    settings: DataSettings,
    directory: Path,
    *,
    cutoff_len: int,
    image_max_pixels: int,
    count_tokens: Callable[[str], int],
) -> tuple[int, list[Problem]]:
    """Write `<directory>/deepeyes.json`, `dataset_info.json` and `dropped.jsonl`; the sources stay as they are.

    Returns:
        Number of conversations kept, and what was wrong with the others.

    Raises:
        RecipeError: A file cannot be read, nothing is left, or `on_bad` is `stop` and something is wrong.
    """
    directory.mkdir(parents=True, exist_ok=True)
    kept: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for path in find_files(settings.files):
        images_directory = Path(settings.images_directory or path.parent).resolve()
        good, bad = check_conversations(
            read_conversations(path),
            source=path.name,
            images_directory=images_directory,
            cutoff_len=cutoff_len,
            image_max_pixels=image_max_pixels,
            count_tokens=count_tokens,
        )
        problems += bad
        for conversation in good:
            images = [str(images_directory / image) for image in conversation.get("images") or []]
            kept.append({"messages": conversation["messages"], "images": images})
    with (directory / "dropped.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems)
    if problems and (settings.on_bad == "stop" or not kept):
        raise RecipeError(
            f"{len(problems)} conversations cannot be trained on, the first: {problems[0].source}: {problems[0].reason}. "
            f"All of them are in {directory / 'dropped.jsonl'}"
        )
    if not kept:
        raise RecipeError(f"{', '.join(settings.files)} hold no conversation")
    (directory / f"{DATASET}.json").write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    (directory / "dataset_info.json").write_text(json.dumps(_CATALOGUE, indent=1), encoding="utf-8")
    return len(kept), problems
