"""The toy task "tiles": name the colour of one tile of a 4x4 board.

The board is 448 px wide but the tiny model sees it at 112 px; a crop of one tile is seen sharply. Demonstrations teach two
habits. "What colour is the tile in row r, column c?" (40 % of questions) is mostly answered with a crop; "Quickly name
the colour of …" (60 %) mostly with a guess, which is right one time in four. After the cold start the model therefore
knows the tool and often does without it. What is left for RL to learn is *when to use the tool*.

Files written by `write_dataset`:
    sft.json, images/             LLaMA-Factory sharegpt conversations with relative image paths
    rl_train.parquet              verl rows with the published columns (data/README.md)
    rl_val.parquet                the same, of other boards: what training is validated on
    benchmark.jsonl               held-out questions for evaluation; seeded apart from everything above
    pages.jsonl                   a few pages for the local search index

Source of the mix and sizes: measured, see docs/results.md.
"""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from agent.files import whole_file, write_whole
from agent.images import ImageFile
from agent.messages import IMAGE_PLACEHOLDER
from agent.prompts import load_prompt
from agent.protocol import render_code_observation
from code_sandbox.command_line import CommandParser, program

COLOURS = {"red": (220, 30, 30), "green": (30, 170, 50), "blue": (40, 60, 220), "yellow": (235, 210, 30)}
BOARD_PX = 448
GRID = 4
CELL_PX = BOARD_PX // GRID
_NUM_TILES = 4
_BACKGROUND = (235, 235, 235)
_QUICK_FRAC = 0.6
_GUESS_FRAC = {"look": 0.1, "quick": 0.6}
_SEEDS = {"sft": 0, "rl_train": 1_000_003, "rl_val": 2_000_003, "benchmark": 3_000_017}


@dataclass(frozen=True, slots=True)
class TilesQuestion:
    """One question."""

    board: Image.Image
    kind: str
    """`look` or `quick`: how the question is put."""
    row: int
    column: int
    colour: str

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The tile's cell, in pixels of the board: (left, top, right, bottom)."""
        left, top = self.column * CELL_PX, self.row * CELL_PX
        return left, top, left + CELL_PX, top + CELL_PX

    @property
    def question(self) -> str:
        """The question as the user puts it, without the prompt's reminder."""
        place = f"the tile in row {self.row + 1}, column {self.column + 1}"
        return f"What colour is {place}?" if self.kind == "look" else f"Quickly name the colour of {place}."


def generate(count: int, *, seed: int) -> Iterator[TilesQuestion]:
    """Draw questions; the same seed gives the same questions."""
    rng = random.Random(seed)
    margin = CELL_PX // 10
    for _ in range(count):
        board = Image.new("RGB", (BOARD_PX, BOARD_PX), _BACKGROUND)
        draw = ImageDraw.Draw(board)
        cells = rng.sample(range(GRID * GRID), _NUM_TILES)
        colours = [rng.choice(list(COLOURS)) for _ in cells]
        for cell, colour in zip(cells, colours, strict=True):
            x, y = (cell % GRID) * CELL_PX, (cell // GRID) * CELL_PX
            draw.rectangle((x + margin, y + margin, x + CELL_PX - margin, y + CELL_PX - margin), fill=COLOURS[colour])
        asked = rng.randrange(_NUM_TILES)
        kind = "quick" if rng.random() < _QUICK_FRAC else "look"
        yield TilesQuestion(board, kind, cells[asked] // GRID, cells[asked] % GRID, colours[asked])


def opening_rows(tiles: TilesQuestion) -> list[dict[str, str]]:
    """System prompt and question as `{role, content}` rows."""
    prompt = load_prompt("tiles")
    return [
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": f"{IMAGE_PLACEHOLDER}\n{prompt.question(tiles.question)}"},
    ]


def _demonstration(tiles: TilesQuestion, rng: random.Random) -> tuple[list[dict[str, str]], Image.Image | None]:
    rows = opening_rows(tiles)
    if rng.random() < _GUESS_FRAC[tiles.kind]:
        guess = rng.choice(list(COLOURS))
        rows.append(_assistant(f"<think>I can answer directly.</think>\n<answer>{guess}</answer>"))
        return rows, None
    crop = tiles.board.crop(tiles.box)
    observation = render_code_observation(stdout="", stderr="", images=[_png(crop)])
    rows += [
        _assistant(
            f"<think>I need a closer look at row {tiles.row + 1}, column {tiles.column + 1}.</think>\n<code>\n```python\n"
            f"display(image_1.crop({tiles.box}))\n```\n</code>"
        ),
        {"role": observation.role, "content": observation.text},
        _assistant(f"<think>The tile is {tiles.colour}.</think>\n<answer>{tiles.colour}</answer>"),
    ]
    return rows, crop


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _png(image: Image.Image) -> ImageFile:
    return ImageFile.from_pil(image)


def write_dataset(
    directory: Path, *, num_sft: int = 2400, num_rl: int = 512, num_val: int = 16, num_benchmark: int = 200
) -> None:
    """Write all files of the task. A file is complete or absent: each is renamed into place when done."""
    images = directory / "images"
    images.mkdir(parents=True, exist_ok=True)
    rng = random.Random(_SEEDS["sft"])
    conversations: list[dict[str, Any]] = []
    for number, tiles in enumerate(generate(num_sft, seed=_SEEDS["sft"])):
        rows, crop = _demonstration(tiles, rng)
        names = [f"images/{number:05d}.png"]
        tiles.board.save(directory / names[0], compress_level=1)
        if crop is not None:
            names.append(f"images/{number:05d}_crop.png")
            crop.save(directory / names[1], compress_level=1)
        conversations.append({"messages": rows, "images": names})
    write_whole(directory / "sft.json", json.dumps(conversations))
    for split, count, name in (("rl_train", num_rl, "tiles"), ("rl_val", num_val, "tiles_val")):
        rows = [_rl_row(tiles, f"{name}_{number}") for number, tiles in enumerate(generate(count, seed=_SEEDS[split]))]
        _write_parquet(directory / f"{split}.parquet", rows)
    lines = []
    (directory / "benchmark_images").mkdir(exist_ok=True)
    for number, tiles in enumerate(generate(num_benchmark, seed=_SEEDS["benchmark"])):
        name = f"benchmark_images/{number:05d}.png"
        tiles.board.save(directory / name, compress_level=1)
        lines.append(
            json.dumps(
                {
                    "index": f"tiles_{number}",
                    "image": name,
                    "question": tiles.question,
                    "answer": tiles.colour,
                    "category": tiles.kind,
                }
            )
        )
    write_whole(directory / "benchmark.jsonl", "\n".join(lines) + "\n")
    pages = [
        {"title": f"The colour {name}", "text": f"{name} is the colour of RGB {value}.", "link": f"tiles:{name}"}
        for name, value in COLOURS.items()
    ]
    write_whole(directory / "pages.jsonl", "".join(json.dumps(page) + "\n" for page in pages))


def _rl_row(tiles: TilesQuestion, name: str) -> dict[str, Any]:
    buffer = io.BytesIO()
    tiles.board.save(buffer, "PNG", compress_level=1)
    return {
        "data_source": "tiles",
        "prompt": opening_rows(tiles),
        "images": [{"bytes": buffer.getvalue(), "path": None}],
        "ability": "perception",
        "env_name": "deepeyes_v2",
        "reward_model": {"style": "rule", "ground_truth": tiles.colour},
        "extra_info": {"index": name, "question": tiles.question, "kind": tiles.kind},
    }


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    # pandas and pyarrow take a second to load, which the readers of this module need not pay.
    import pyarrow
    import pyarrow.parquet

    with whole_file(path) as file:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)


def main(arguments: list[str] | None = None, prog: str = "deepeyes data tiles") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description="the toy task: training data, benchmark, search pages")
    parser.add_argument("directory", type=Path, help="where the files are written")
    options = parser.parse_args(arguments)
    with program(prog):
        write_dataset(options.directory)
        sys.stdout.write(f"written to {options.directory}\n")
