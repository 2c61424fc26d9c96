import hashlib
import json
import random
import re

import pyarrow.parquet
import pytest

from agent.protocol import FinalAnswer, ToolCall, parse_action
from agent.search.providers import local, local_images
from data.families import DIRECT, LEVELS, SPLITS, family_names, load_family
from data.families._demonstrations import DirectShares, Runner, demonstration
from data.families._files import Amounts, questions, write_family
from data.families._invented import MOST_NAMES, invented_names
from data.families.chain import stations
from data.families.count import needs_code
from data.families.lookup import towns
from data.families.mark import COLOURS, ILLEGIBLE, LEGIBLE, SMALL_PX, draw_mark, separation
from data.make_family import main
from evaluation.benchmarks import load_benchmark

FEW = Amounts(sft=12, rl_train=6, benchmark=6)


def content(directory):
    return {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp(name) for name in family_names()}
    for name, folder in folders.items():
        main([name, str(folder), "--seed", "3", "--sft", "12", "--rows", "6", "--items", "6"])
    return folders


@pytest.mark.parametrize("name", family_names())
def test_the_same_seed_writes_the_same_bytes_and_another_does_not(name, written, tmp_path):
    write_family(load_family(name), tmp_path / "again", seed=3, amounts=FEW)
    write_family(load_family(name), tmp_path / "other", seed=4, amounts=FEW)
    again, other = content(tmp_path / "again"), content(tmp_path / "other")
    assert again == content(written[name])
    for file in ("sft.json", "rl_train.parquet", "benchmark.tsv"):
        assert again[file] != other[file]


@pytest.mark.parametrize("name", family_names())
@pytest.mark.parametrize("level", LEVELS)
def test_no_question_is_in_two_splits(name, level):
    asked = {}
    for split in SPLITS:
        found = questions(load_family(name), split, 40, seed=0, level=level)
        asked[split] = {(q.text, q.image.tobytes() if q.image is not None else b"") for q in found}
    assert not asked["sft"] & asked["rl_train"]
    assert not asked["sft"] & asked["benchmark"]
    assert not asked["rl_train"] & asked["benchmark"]


@pytest.mark.parametrize("name", family_names())
@pytest.mark.parametrize("level", LEVELS)
def test_the_calls_of_a_question_lead_to_its_answer(name, level, tmp_path):
    family = load_family(name)
    write_family(family, tmp_path, level=level, amounts=Amounts(sft=1, rl_train=1, benchmark=1))
    runner = Runner(
        tmp_path / "pages.jsonl" if family.pages else None, tmp_path / "pictures" if family.pictures else None
    )
    for question in questions(family, "benchmark", 12, seed=1, level=level):
        seen = runner.run(question.calls, question.image)
        assert len(seen) < family.num_replies
        assert {call.name for call in question.calls} <= set(family.tools)
        assert question.answer in question.others or not question.tool_needed
        if name != "mark":  # what a crop shows is not text
            assert re.search(rf"\b{re.escape(question.answer)}\b", seen[-1].text), (question.text, seen[-1].text)


@pytest.mark.parametrize("level", LEVELS)
def test_a_mark_is_labelled_by_whether_the_best_observer_could_read_it(level):
    kinds = set()
    for seed in range(10):
        mark, colour = draw_mark(random.Random(seed), level)
        question = load_family("mark").draw(random.Random(seed), level, "sft")
        assert question.answer == colour
        kinds.add(question.kind)
        for other in list(COLOURS)[:3]:
            if other == colour:
                continue
            apart = separation(mark, colour, other)
            assert apart > LEGIBLE if question.kind == DIRECT else apart < ILLEGIBLE, (seed, apart)
    assert kinds == {DIRECT, "crop"}


def test_a_small_mark_that_is_drawn_plainly_would_be_legible(monkeypatch):
    """The rule can say no: without its dots the same square is read at once."""
    from PIL import Image

    from data.families import mark as module

    monkeypatch.setattr(module, "_dotted", lambda colour: Image.new("RGB", (SMALL_PX, SMALL_PX), colour))
    mark = next(mark for seed in range(20) if (mark := draw_mark(random.Random(seed), 1)[0]).is_small)
    assert separation(mark, "red", "blue") > LEGIBLE


def test_a_crop_of_a_small_mark_shows_its_colour():
    question = next(q for q in questions(load_family("mark"), "sft", 20, seed=0, level=1) if q.kind == "crop")
    (seen,) = Runner().run(question.calls, question.image)
    crop = seen.images[0].pil()
    # The strongest dot, in the middle of the mark, is nearest to its colour.
    middle = [crop.getpixel((x, y)) for x in (27, 28) for y in (27, 28)]
    mean = [sum(pixel[channel] for pixel in middle) / 4 for channel in range(3)]
    nearest = min(COLOURS, key=lambda name: sum((a - b) ** 2 for a, b in zip(COLOURS[name], mean, strict=True)))
    assert nearest == question.answer


def test_counts_are_those_of_the_pixels():
    for question in questions(load_family("count"), "sft", 12, seed=0, level=1):
        name = question.text.split()[2]
        pixels = {colour: count for count, colour in question.image.getcolors()}[COLOURS[name]]
        side_px = 8 if question.tool_needed else 168
        assert pixels == int(question.answer) * side_px**2
        assert question.tool_needed == needs_code(int(question.answer), side_px)


def test_a_town_that_is_not_known_is_asked_about_in_one_split_only():
    asked = {split: {True: set(), False: set()} for split in SPLITS}
    for split in SPLITS:
        for question in questions(load_family("lookup"), split, 300, seed=0, level=1):
            town = next(name for name in towns(1) if name in question.text)
            asked[split][question.tool_needed].add(town)
    assert asked["sft"][False] == asked["benchmark"][False], "every split asks about the known ones"
    assert not asked["sft"][True] & asked["benchmark"][True]
    assert not asked["sft"][True] & asked["rl_train"][True]
    assert not asked["rl_train"][True] & asked["benchmark"][True]


def test_a_station_is_asked_about_in_one_split_only_and_its_words_in_all():
    codes = {
        split: {question.calls[-1].arguments["query"] for question in questions(load_family("chain"), split, 600, seed=0, level=1)}
        for split in SPLITS
    }
    assert not codes["sft"] & codes["rl_train"]
    assert not codes["sft"] & codes["benchmark"]
    assert not codes["rl_train"] & codes["benchmark"]
    for split in SPLITS:
        words = [set(column) for column in zip(*(code.split("_") for code in codes[split]), strict=True)]
        assert words[0] == {"red", "green", "blue"}
        assert [len(column) for column in words[1:]] == [24, 24]


async def test_a_stations_code_finds_its_page_and_no_other(written):
    provider = local.Provider(local.Settings(path=written["chain"] / "pages.jsonl"))
    for (colour, ending), keeper in list(stations(1).items())[::7]:
        (hit,) = await provider.search(f"{colour}{ending}", max_hits=5)
        assert hit.snippet == f"The keeper of {colour}{ending} is {keeper}."


def test_a_code_that_is_read_wrongly_leads_to_another_keeper_mostly():
    """A search with a guessed colour must not be worth as much as one with the colour that a crop shows."""
    known = stations(1)
    same = [keeper == known["blue", ending] for (colour, ending), keeper in known.items() if colour == "red"]
    assert sum(same) / len(same) < 0.2


async def test_every_picture_is_found_in_its_folder_at_any_size(written):
    from agent.images import ImageFile

    provider = local_images.Provider(local_images.Settings(path=written["picture"] / "pictures"))
    for question in questions(load_family("picture"), "benchmark", 20, seed=5, level=1):
        hits = await provider.search_image(ImageFile.from_pil(question.image), item_id="", max_hits=5)
        assert hits[0].title == question.answer


def test_invented_names_differ():
    names = invented_names(MOST_NAMES, world="all")
    assert len(set(names)) == MOST_NAMES


@pytest.mark.parametrize("name", family_names())
def test_what_is_written_is_read_by_every_stage(name, written):
    folder = written[name]
    conversations = json.loads((folder / "sft.json").read_text())
    assert len(conversations) == 12
    for row in conversations:
        texts = "".join(message["content"] for message in row["messages"])
        assert texts.count("<image>") == len(row["images"])
        assert all((folder / image).is_file() for image in row["images"])
        for message in row["messages"]:
            if message["role"] == "assistant":
                assert isinstance(parse_action(message["content"]), FinalAnswer | ToolCall)
        assert isinstance(parse_action(row["messages"][-1]["content"]), FinalAnswer)
    for row in pyarrow.parquet.read_table(folder / "rl_train.parquet").to_pylist():
        assert row["prompt"][1]["content"].count("<image>") == len(row["images"])
        assert row["extra_info"]["tool_needed"] == (row["extra_info"]["kind"] != DIRECT)
    items = list(load_benchmark("families").load(folder / "benchmark.tsv"))
    drawn = questions(load_family(name), "benchmark", 6, seed=3, level=1)
    for item, question in zip(items, drawn, strict=True):
        assert (item.question, item.gold, item.category) == (question.text, question.answer, question.kind)
        assert not item.unread
        assert [image.pil().tobytes() for image in item.read_images()] == (
            [] if question.image is None else [question.image.tobytes()]
        )
    assert json.loads((folder / "family.json").read_text())["version"] == load_family(name).version


@pytest.mark.parametrize(("not_needed", "needed"), [(1.0, 0.0), (0.0, 1.0)])
def test_shares_decide_who_answers_at_once(not_needed, needed):
    rng, shares = random.Random(0), DirectShares(not_needed=not_needed, needed=needed)
    for question in questions(load_family("mark"), "sft", 20, seed=0, level=1):
        rows, images = demonstration(question, rng, Runner(), shares)
        at_once = needed if question.tool_needed else not_needed
        assert (len(rows) == 1) == (not images) == bool(at_once)
        assert question.tool_needed or question.answer in rows[-1]["content"]


def test_what_cannot_be_is_refused_by_its_value(tmp_path):
    with pytest.raises(ValueError, match=r"not_needed is 1\.5; expected 0 to 1"):
        DirectShares(not_needed=1.5)
    with pytest.raises(ValueError, match="benchmark is 0"):
        Amounts(benchmark=0)
    with pytest.raises(LookupError, match="chain, count, lookup, mark, picture"):
        load_family("nope")
    with pytest.raises(ValueError, match="no level 9"):
        next(questions(load_family("mark"), "sft", 1, seed=0, level=9))
