"""Steps that ask no model: what each keeps and drops, and why."""

import json

import pyarrow.parquet
import pytest

from curation.errors import CurationError
from curation.steps.mix import shares
from reinforcement_learning.row_errors import RowError
from reinforcement_learning.rows import read_row
from tests.unit.curation.conftest import photo, png, row

GOLDS = ("red", "green", "blue", "yellow")


def test_a_row_that_cannot_be_read_is_dropped_with_the_reason_and_the_rest_goes_on(bench):
    rows = [
        row(0),
        row(1, gold=""),
        row(2, prompt=[{"role": "user", "content": "no placeholder"}]),
        row(3, image=b"no image"),
    ]
    bench.run([bench.source("mine", rows)], [{"check": {}}])
    reasons = bench.reasons("00_sources")
    assert reasons["mine:mine:1"].startswith("gold is empty")
    assert "image is broken" in reasons["mine:mine:3"]
    assert bench.kept("01_check") == ["i0"]


def test_an_image_that_is_cut_off_behind_its_header_is_found_by_check(bench):
    whole = photo(1, size=(400, 400))
    bench.run([bench.source("mine", [row(0), row(1, image=whole[: len(whole) // 2])])], [{"check": {}}])
    assert bench.kept("01_check") == ["i0"]
    assert bench.reasons("01_check")["i1"].startswith("image is broken: number 1")


def test_a_data_source_without_a_reward_is_dropped_before_training_meets_it(bench):
    bench.run([bench.source("mine", [row(0), row(1, source="unknown")])], [{"check": {}}])
    assert bench.reasons("01_check")["i1"].startswith("no reward: ")


def test_the_same_question_about_the_same_image_at_another_size_and_quality_is_a_duplicate(bench):
    question = "Which of the boats in the harbour has its sail up?"
    rows = [
        row(0, question=question),
        row(1, question=question, image=photo(0, size=(240, 240), quality=60)),
        row(2, question=question, image=photo(7)),  # another image
        row(3, question="How many people are standing on the pier?", image=photo(0)),  # another question
    ]
    bench.run([bench.source("mine", rows)], [{"dedupe": {}}])
    assert bench.kept("01_dedupe") == ["i0", "i2", "i3"]
    assert bench.reasons("01_dedupe")["i1"].startswith("near-duplicate: of mine:mine:0, ")


@pytest.mark.parametrize(("scope", "kept"), [("question", ["i0", "i3"]), ("image", ["i0", "i2"])])
def test_one_of_question_and_image_is_enough_where_the_scope_says_so(bench, scope, kept):
    question = "Which of the boats in the harbour has its sail up?"
    rows = [
        row(0, question=question),
        row(2, question=question, image=photo(7)),
        row(3, question="How many people are standing on the pier?", image=photo(0)),
    ]
    bench.run([bench.source("mine", rows)], [{"dedupe": {"scope": scope}}])
    assert bench.kept("01_dedupe") == kept


def test_questions_without_an_image_are_compared_by_their_words(bench):
    long = "In which year did the architect of the opera house in Sydney win the prize named after Pritzker"
    rows = [row(0, question=long, image=False), row(1, question=long + "?", image=False), row(2, image=False)]
    bench.run([bench.source("mine", rows)], [{"dedupe": {}}])
    assert bench.kept("01_dedupe") == ["i0", "i2"]


def test_images_of_one_colour_are_like_every_other_and_make_no_duplicates(bench):
    rows = [row(n, question="What is shown here?", image=png(50 + n, 50)) for n in range(3)]
    bench.run([bench.source("mine", rows)], [{"dedupe": {}}])
    assert len(bench.kept("01_dedupe")) == 3


def test_a_row_of_an_evaluation_set_is_dropped_by_its_image_and_a_common_question_is_not(bench):
    folder = bench.directory / "eval"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(photo(1, size=(300, 300)))
    item = {
        "index": "t0",
        "image": "a.jpg",
        "question": "What colour is the car in front?",
        "answer": "red",
        "category": "x",
    }
    (folder / "benchmark.jsonl").write_text(json.dumps(item) + "\n")
    rows = [row(0, question=item["question"]), row(1, question="Is the door open or is it closed?", image=photo(1))]
    step = {"benchmarks": {"tiles": str(folder / "benchmark.jsonl")}}
    bench.run([bench.source("mine", rows)], [{"decontaminate": step}, {"export": {}}])
    assert bench.kept("01_decontaminate") == ["i0"]
    card = (bench.directory / "store/sets/toy/README.md").read_text()
    assert "'benchmarks': ['tiles']" in card
    assert str(bench.directory) not in card
    assert "tiles t0 by image" in bench.reasons("01_decontaminate")["i1"]


def test_a_gold_that_its_own_grader_rejects_is_dropped(bench):
    rows = [row(n, gold=GOLDS[n]) for n in range(4)] + [row(9, gold="x" * 299 + "y")]
    bench.run([bench.source("mine", rows)], [{"verify_gold": {}}])
    # 300 characters or more are scored 0 by the reward, whatever the gold says.
    assert bench.reasons("01_verify_gold")["i9"].startswith("gold fails its own grader: ")
    assert bench.kept("01_verify_gold") == ["i0", "i1", "i2", "i3"]


def test_a_grader_that_lets_another_rows_answer_pass_is_told_by_the_shuffled_gold(bench):
    rows = [row(0, gold="1/2"), row(1, gold="0.5")]
    bench.run(
        [bench.source("mine", rows, group="numbers"), bench.source("other", [row(5, gold="red")])], [{"verify_gold": {}}]
    )
    assert all(reason.startswith("another answer passes, too") for reason in bench.reasons("01_verify_gold").values())
    assert bench.kept("01_verify_gold") == ["i5"]


def test_what_no_rule_decides_stays_open_and_is_not_called_wrong(bench):
    rows = [row(0, gold="a wooden footbridge across the river"), row(1, gold="the tall man who wears a striped scarf")]
    bench.run([bench.source("mine", rows)], [{"verify_gold": {"on_open": "drop"}}])
    summary = bench.step("01_verify_gold").summary()
    assert (summary["dropped"], summary["open"]) == (0, 2)


@pytest.mark.parametrize(
    ("weights", "total", "expected"),
    [
        ({"perception": 0.52, "reason": 0.42, "search": 0.06}, 15360, {"perception": 7987, "reason": 6451, "search": 922}),
        ({"a": 1 / 3, "b": 1 / 3, "c": 1 - 2 / 3}, 10, {"a": 3, "b": 3, "c": 4}),
        ({"a": 0.5, "b": 0.5}, 1, {"a": 1, "b": 0}),
    ],
)
def test_shares_are_exact_and_the_largest_remainders_get_the_rest(weights, total, expected):
    assert shares(weights, total) == expected


def test_a_mix_is_drawn_exactly_and_the_same_every_time(bench):
    sources = [
        bench.source("a", [row(n) for n in range(20)], "x"),
        bench.source("b", [row(n) for n in range(100, 120)], "y"),
    ]
    mix = {"mix": {"rl": {"x": 0.75, "y": 0.25}, "total": 12}}
    bench.run(sources, [mix])
    first = bench.kept("01_mix")
    assert sum(int(name[1:]) < 100 for name in first) == 9
    assert len(first) == 12
    (bench.directory / "run/01_mix/key.json").unlink()
    bench.run(sources, [mix])
    assert bench.kept("01_mix") == first


def test_a_group_that_is_short_stops_the_mix_and_says_what_there_is(bench):
    sources = [bench.source("a", [row(n) for n in range(6)], "x"), bench.source("b", [row(100)], "y")]
    with pytest.raises(CurationError, match="y has 1 of 3; lower total"):
        bench.run(sources, [{"mix": {"rl": {"x": 0.5, "y": 0.5}, "total": 6}}])
    bench.run(sources, [{"mix": {"rl": {"x": 0.5, "y": 0.5}, "total": 6, "short": "less"}}])
    assert len(bench.kept("01_mix")) == 3


def test_an_exported_set_has_the_stores_schema_a_card_and_a_manifest_that_adds_up(bench):
    rows = [row(n, gold=GOLDS[n % 4]) for n in range(6)] + [row(0, gold="red")]
    bench.run([bench.source("mine", rows)], [{"check": {}}, {"dedupe": {}}, {"export": {}}])
    folder = bench.directory / "store/sets/toy"
    table = pyarrow.parquet.read_table(folder / "rl.parquet")
    assert table.schema.names == [
        "data_source", "prompt", "images", "image_sizes", "reward_model", "extra_info_json", "source", "licence", "group",
    ]  # fmt: skip
    assert str(table.schema.field("image_sizes").type) == "list<element: list<element: int32>>"
    first = table.to_pylist()[0]
    assert first["images"][0] == (bench.directory / "store/images" / first["images"][0][:2] / first["images"][0]).name
    assert (bench.directory / "store/images" / first["images"][0][:2] / first["images"][0]).is_file()
    assert first["reward_model"]["ground_truth"] == ["red"]
    assert json.loads(first["extra_info_json"])["index"] == "i0"
    content = read_row(first, file=str(folder / "rl.parquet"), row=0)
    assert content.images == (photo(0),)
    assert (content.item_id, content.gold, content.question) == ("i0", ("red",), rows[0]["extra_info"]["question"])
    manifest = bench.manifest()
    assert manifest["rows"]["rl"] == table.num_rows == 6
    for step in manifest["steps"]:
        assert step["in"] == step["kept"] + step["dropped"] + step["open"]
    card = (folder / "README.md").read_text()
    assert "license: mit" in card
    assert "| 02_dedupe | 7 | 6 | 1 | 0 |" in card
    assert len((folder / "dropped.jsonl").read_text().splitlines()) == 1


def test_an_image_that_the_store_has_no_more_is_told_by_its_name(bench):
    bench.run([bench.source("mine", [row(0)])], [{"export": {}}])
    path = bench.directory / "store/sets/toy/rl.parquet"
    (first,) = pyarrow.parquet.read_table(path).to_pylist()
    name = first["images"][0]
    (bench.directory / "store/images" / name[:2] / name).unlink()
    with pytest.raises(RowError, match=f"has no image {name}; prepare the set again"):
        read_row(first, file=str(path), row=0)
