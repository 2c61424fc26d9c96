"""Writing a family: conversations, RL rows, a benchmark, and what its tools search.

- sft.json, images/       LLaMA-Factory sharegpt conversations with relative image paths
- rl_train.parquet        verl rows with the published columns (data/README.md)
- benchmark.tsv           held-out questions in VLMEvalKit's form; `deepeyes eval --benchmark families` reads it
- pages.jsonl             what the local text search finds, for families that search
- pictures/               an image folder with titles, for families that search by image
- family.json             how all of it was made; written last
"""

from __future__ import annotations

import base64
import csv
import io
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.files import whole_file, write_whole
from agent.images import ImageFile
from agent.messages import IMAGE_PLACEHOLDER
from agent.prompts import load_prompt
from agent.protocol import PYTHON
from data.families import LEVELS, SPLITS, Family, Question
from data.families._demonstrations import DirectShares, Runner, demonstration

BENCHMARK_COLUMNS = ("index", "image", "question", "answer", "category", "tool_needed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Amounts:
    """How much is written."""

    sft: int = 2400
    rl_train: int = 512
    benchmark: int = 200

    def __post_init__(self) -> None:
        for split in SPLITS:
            if getattr(self, split) < 1:
                raise ValueError(f"{split} is {getattr(self, split)}; a family needs at least 1 question of each")


_AMOUNTS = Amounts()
_SHARES = DirectShares()


def questions(family: Family, split: str, count: int, *, seed: int, level: int) -> Iterator[Question]:
    """Draw questions; the same arguments give the same ones, and no other split of the seed has one of them.

    Raises:
        ValueError: There is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f"there is no level {level}; expected one of {', '.join(map(str, LEVELS))}")
    rng = random.Random(f"{family.name} {family.version} {split} {seed} {level}")
    for _ in range(count):
        yield family.draw(rng, level, split)


def opening_rows(family: Family, question: Question) -> list[dict[str, str]]:
    """System prompt and question as `{role, content}` rows."""
    prompt = load_prompt("families", tools=[name for name in family.tools if name != PYTHON])
    shown = f"{IMAGE_PLACEHOLDER}\n" if question.image is not None else ""
    return [
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": shown + prompt.question(question.text)},
    ]


def write_family(
    family: Family,
    directory: Path,
    *,
    seed: int = 0,
    level: int = 1,
    amounts: Amounts = _AMOUNTS,
    shares: DirectShares = _SHARES,
) -> None:
    """Write all files of a family. A file is complete or absent: each is renamed into place when done.

    Args:
        family: Of `load_family`.
        directory: Made if it is not there.
        seed: Of questions and demonstrations.
        level: Of difficulty, one of `LEVELS`.
        amounts: Questions of each split.
        shares: Of demonstrations that use no tool.

    Raises:
        ValueError: There is no such level.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "family.json").unlink(missing_ok=True)
    pages, pictures = _write_sources(family, directory, level)

    def drawn(split: str) -> Iterator[tuple[int, Question]]:
        return enumerate(questions(family, split, getattr(amounts, split), seed=seed, level=level))

    rng = random.Random(f"demonstrations {seed}")
    runner = Runner(pages, pictures)
    (directory / "images").mkdir(exist_ok=True)
    conversations = [
        _conversation(family, question, f"images/{number:05d}", directory, demonstration(question, rng, runner, shares))
        for number, question in drawn("sft")
    ]
    write_whole(directory / "sft.json", json.dumps(conversations))
    write_rl_rows(directory / "rl_train.parquet", family, (question for _, question in drawn("rl_train")), name=family.name)
    _write_benchmark(directory / "benchmark.tsv", family, drawn("benchmark"))
    about = {"family": family.name, "version": family.version, "seed": seed, "level": level}
    write_whole(
        directory / "family.json", json.dumps(about | {"rows": asdict(amounts), "direct": asdict(shares)}, indent=1) + "\n"
    )


def _conversation(
    family: Family, question: Question, name: str, directory: Path, shown: tuple[list[dict[str, str]], list[ImageFile]]
) -> dict[str, Any]:
    rows, images = shown
    if question.image is not None:
        images = [ImageFile.from_pil(question.image), *images]
    names = [f"{name}_{number}.png" for number in range(len(images))]
    for path, image in zip(names, images, strict=True):
        write_whole(directory / path, image.data)
    return {"messages": opening_rows(family, question) + rows, "images": names}


def write_rl_rows(path: Path, family: Family, drawn: Iterable[Question], *, name: str) -> None:
    """Write questions as rows for RL, `<name>_0` and so on."""
    _write_parquet(path, [_rl_row(family, question, f"{name}_{number}") for number, question in enumerate(drawn)])


def _rl_row(family: Family, question: Question, name: str) -> dict[str, Any]:
    images = [] if question.image is None else [{"bytes": ImageFile.from_pil(question.image).data, "path": None}]
    return {
        "data_source": "families",
        "prompt": opening_rows(family, question),
        "images": images,
        "ability": family.name,
        "env_name": "deepeyes_v2",
        "reward_model": {"style": "rule", "ground_truth": question.answer},
        "extra_info": {
            "index": name,
            "question": question.text,
            "kind": question.kind,
            "tool_needed": question.tool_needed,
        },
    }


def _write_benchmark(path: Path, family: Family, drawn: Iterator[tuple[int, Question]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(BENCHMARK_COLUMNS)
    for number, question in drawn:
        image = question.image
        encoded = "" if image is None else base64.b64encode(ImageFile.from_pil(image).data).decode()
        name = f"{family.name}_{number}"
        writer.writerow([name, encoded, question.text, question.answer, question.kind, int(question.tool_needed)])
    write_whole(path, text.getvalue())


def _write_sources(family: Family, directory: Path, level: int) -> tuple[Path | None, Path | None]:
    """(file of pages, folder of pictures), where the family has them."""
    pages = pictures = None
    if family.pages is not None:
        pages = directory / "pages.jsonl"
        rows = [{"title": page.title, "text": page.snippet, "link": page.link} for page in family.pages(level)]
        write_whole(pages, "".join(json.dumps(row) + "\n" for row in rows))
    if family.pictures is not None:
        pictures = directory / "pictures"
        pictures.mkdir(exist_ok=True)
        titles = []
        for number, (title, image) in enumerate(family.pictures(level)):
            name = f"{number:03d}.png"
            write_whole(pictures / name, ImageFile.from_pil(image).data)
            titles.append({"file": name, "title": title})
        write_whole(pictures / "titles.jsonl", "".join(json.dumps(row) + "\n" for row in titles))
    return pages, pictures


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    # pandas and pyarrow take a second to load, which the readers of this module need not pay.
    import pyarrow
    import pyarrow.parquet

    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.Table.from_pylist(rows)
    # Of a family without images nothing else would say what an image is.
    number = table.schema.get_field_index("images")
    table = table.set_column(number, "images", table["images"].cast(pyarrow.list_(image)))
    with whole_file(path) as file:
        pyarrow.parquet.write_table(table, file)
