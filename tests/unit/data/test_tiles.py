import json

import pyarrow.parquet
import pytest

from agent.protocol import FinalAnswer, ToolCall, parse_action
from data.tiles import COLOURS, generate, opening_rows, write_dataset


def test_the_same_seed_gives_the_same_questions_and_another_does_not():
    first, again, other = ([(t.question, t.colour, t.board.tobytes()) for t in generate(20, seed=s)] for s in (1, 1, 2))
    assert first == again
    assert first != other


def test_the_answer_is_the_colour_in_the_box():
    for tiles in generate(50, seed=3):
        left, top, right, bottom = tiles.box
        assert tiles.board.getpixel(((left + right) // 2, (top + bottom) // 2)) == COLOURS[tiles.colour]


def test_splits_share_no_board(tmp_path):
    write_dataset(tmp_path, num_sft=40, num_rl=40, num_val=40, num_benchmark=40)
    rl, val = (
        {row["images"][0]["bytes"] for row in pyarrow.parquet.read_table(tmp_path / f"{split}.parquet").to_pylist()}
        for split in ("rl_train", "rl_val")
    )
    sft = {(tmp_path / c["images"][0]).read_bytes() for c in json.loads((tmp_path / "sft.json").read_text())}
    rows = [json.loads(line) for line in (tmp_path / "benchmark.jsonl").read_text().splitlines()]
    benchmark = {(tmp_path / row["image"]).read_bytes() for row in rows}
    assert len(rl) == len(val) == len(sft) == len(benchmark) == 40
    assert not val & (rl | sft | benchmark)
    assert not rl & sft
    assert not rl & benchmark
    assert not sft & benchmark


def test_rl_rows_have_the_published_columns(toy):
    row = pyarrow.parquet.read_table(toy / "data/rl_train.parquet").to_pylist()[0]
    assert set(row) >= {"data_source", "prompt", "images", "reward_model", "extra_info", "env_name"}
    assert row["prompt"][1]["content"].count("<image>") == len(row["images"]) == 1
    assert isinstance(row["extra_info"]["index"], str)
    assert row["reward_model"]["ground_truth"] in COLOURS


@pytest.mark.parametrize(("kind", "guesses_low", "guesses_high"), [("look", 0.02, 0.25), ("quick", 0.45, 0.75)])
def test_demonstrations_teach_the_two_habits(tmp_path, kind, guesses_low, guesses_high):
    write_dataset(tmp_path, num_sft=300, num_rl=1, num_benchmark=1)
    guessed = []
    for conversation in json.loads((tmp_path / "sft.json").read_text()):
        question = conversation["messages"][1]["content"]
        if ("Quickly" in question) == (kind == "quick"):
            first = parse_action(conversation["messages"][2]["content"])
            assert isinstance(first, FinalAnswer | ToolCall)
            guessed.append(isinstance(first, FinalAnswer))
    assert guesses_low < sum(guessed) / len(guessed) < guesses_high


def test_the_prompt_is_the_same_in_training_and_evaluation(toy):
    from agent.prompts import load_prompt
    from agent.setup import opening, question
    from evaluation.benchmarks import load_benchmark

    item = next(load_benchmark("tiles").load(toy / "data/benchmark.jsonl"))
    messages = opening([question(item.question, item.read_images())], load_prompt("tiles"))
    tiles = next(generate(1, seed=3_000_017))
    assert [message.text for message in messages] == [row["content"] for row in opening_rows(tiles)]
