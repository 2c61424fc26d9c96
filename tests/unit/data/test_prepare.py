"""A prepared set holds what can be trained on, names what cannot, and is made once."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from agent.image_library import ImageLibrary
from cold_start.check_data import conversation_problems
from cold_start.prepare_data import examine_data, read_sources
from cold_start.recipe import DataSettings
from data.look.files import data_files
from data.look.rows import LookOptions
from data.look.validate import problems_of
from deepeyes.cli import main as deepeyes
from reinforcement_learning.row_files import RowStore
from reinforcement_learning.rows import RowOptions
from tests.conftest import ROOT, png
from tests.unit.data.test_look import BAD_ROWS, bad_conversations, conversation, jpeg, rl_row, write_rl


def run(*arguments):
    try:
        deepeyes(["data", *map(str, arguments)])
    except SystemExit as ended:
        return ended.code
    return 0


def write_rows(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)


def manifest_of(store, name):
    return json.loads((store / "sets" / name / "manifest.json").read_text())


def state(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


# ---- RL ----


def test_rl_rows_of_every_published_form_become_rows_by_name_and_every_other_row_is_named(tmp_path, capsys):
    photo = jpeg()
    write_rows(tmp_path / "in/perception.parquet", [rl_row(), rl_row(1, images=[{"bytes": photo, "path": "x.jpg"}]), rl_row()])
    # Another file, another schema: numbers for texts, a list of golds, a prompt as a text, an image by its path.
    (tmp_path / "in/photo.jpg").write_bytes(photo)
    other = rl_row(2, prompt="<image>Which?", images=["photo.jpg"], extra_info=json.dumps({"index": 7.0, "level": 3}))
    write_rows(tmp_path / "in/search.parquet", [other | {"reward_model": {"ground_truth": ["red", "crimson"]}}])
    for number, changes in enumerate(BAD_ROWS.values()):
        write_rows(tmp_path / f"in/bad_{number}.parquet", [rl_row(**changes)])
    before = state(tmp_path / "in")
    store = tmp_path / "store"
    assert run("prepare", "rl", tmp_path / "in", "--out", store, "--licence", "mit", "--group", "perception") == 0
    assert state(tmp_path / "in") == before
    said = capsys.readouterr().out
    assert f"4 rows, 2 images; {len(BAD_ROWS)} dropped" in said

    manifest = manifest_of(store, "rl")
    counts = manifest["counts"]
    # Alone in its file a row without ground_truth has no such column.
    kinds = {"no gold answer" if kind == "gold is null" else kind for kind in BAD_ROWS}
    assert {kind: one["number"] for kind, one in counts["dropped"].items()} == dict.fromkeys(kinds, 1)
    assert counts["rows_by_source"] == {"perception": 3, "search": 1}
    assert counts["rows_by_licence"] == {"mit": 4}
    assert counts["question_images"]["count"] == 4
    assert counts["question_images"]["pixels"]["max"] == 300 * 200
    assert counts["tool_images"]["count"] == 0
    assert counts["rows_that_repeat_a_question_and_its_images"] == 1
    dropped = [json.loads(line) for line in (store / "sets/rl/dropped.jsonl").read_text().splitlines()]
    assert Counter(one["kind"] for one in dropped) == Counter(kinds)
    assert all(one["file"].endswith(".parquet") and one["row"] == 0 and one["detail"] for one in dropped)

    # The trainer reads the set as it is, and finds nothing more to drop.
    path = store / "sets/rl/rl.parquet"
    assert list(problems_of(data_files([str(path.parent)]), LookOptions())) == []
    rows = RowStore(path, RowOptions())
    last = rows[3]
    assert (len(rows), last.gold, last.item_id, last.extra["level"]) == (4, ("red", "crimson"), "7", 3)
    assert last.images == (photo,)
    assert rows[0].question == "What colour is 0?"


def test_a_set_that_is_done_is_not_written_again_and_another_is_not_written_over_it(tmp_path, capsys):
    write_rows(tmp_path / "in.parquet", [rl_row(number) for number in range(5)])
    store = tmp_path / "store"
    assert run("prepare", "rl", tmp_path / "in.parquet", "--out", store) == 0
    before = state(store)
    assert run("prepare", "rl", tmp_path / "in.parquet", "--out", store) == 0
    assert "It was prepared before; nothing was written" in capsys.readouterr().out
    assert {path: at for path, at in state(store).items() if path.name != ".lock"} == {
        path: at for path, at in before.items() if path.name != ".lock"
    }
    write_rows(tmp_path / "other.parquet", [rl_row(9)])
    assert run("prepare", "rl", tmp_path / "other.parquet", "--out", store) == 2
    assert "made from other files or settings (sources); give another --name" in capsys.readouterr().err
    assert run("prepare", "rl", tmp_path / "in.parquet", "--image-root", tmp_path, "--out", store) == 2
    assert "made from other files or settings (settings)" in capsys.readouterr().err
    assert run("prepare", "rl", tmp_path / "other.parquet", "--out", store, "--name", "more") == 0
    assert manifest_of(store, "more")["counts"]["rows"] == 1
    # A prepared set is a source like any other.
    assert run("prepare", "rl", store / "sets/rl", "--out", store, "--name", "again") == 0
    one, two = (pyarrow.parquet.read_table(store / f"sets/{name}/rl.parquet") for name in ("rl", "again"))
    assert one.equals(two)


def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_set(tmp_path):
    pictures = [png(40 + number, 30) for number in range(200)]
    rows = [rl_row(number, images=[{"bytes": pictures[number % 200], "path": None}]) for number in range(4000)]
    write_rows(tmp_path / "in.parquet", rows, row_group_size=900)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run("prepare", "rl", tmp_path / "in.parquet", "--out", whole) == 0
    command = [sys.executable, "-m", "deepeyes.cli", "data", "prepare", "rl", tmp_path / "in.parquet", "--out", cut]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment)
    parts = cut / "sets/rl/unfinished"
    deadline = time.monotonic() + 60
    while not list(parts.glob("0*.jsonl")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (cut / "sets/rl/manifest.json").exists()
    done = {path: path.stat().st_mtime_ns for path in parts.glob("0*.jsonl")}
    images = {path: path.stat().st_mtime_ns for path in (cut / "images").rglob("*") if len(path.name) == 64}
    subprocess.run(command, env=environment, check=True)
    assert done
    assert images
    assert {path: path.stat().st_mtime_ns for path in images} == images
    assert not parts.exists()
    # The key names the source by its file, so that two stores of one source are equal.
    assert manifest_of(cut, "rl") == manifest_of(whole, "rl")
    assert (cut / "sets/rl/rl.parquet").read_bytes() == (whole / "sets/rl/rl.parquet").read_bytes()


# ---- conversations ----


def test_published_conversations_become_a_set_that_cold_start_reads_whole(tmp_path, capsys):
    rows = bad_conversations(tmp_path)
    # A comma too many, a byte order mark, and paths of the author's machine.
    text = json.dumps([*rows, conversation(1, images=["/mnt/author/data/images/a.png", "images/b.jpg"])])
    (tmp_path / "json").mkdir()
    (tmp_path / "json/part_0.json").write_text(text[:-1] + ",\n]", encoding="utf-8-sig")
    (tmp_path / "json/part_1.jsonl").write_text(json.dumps(conversation(2)) + "\n\n" + json.dumps(conversation(3))[:-9])
    store = tmp_path / "store"
    assert run("prepare", "sft", tmp_path / "json", "--out", store, "--from", "mine", "--licence", "cc-by-4.0") == 0
    said = capsys.readouterr().out
    for told in ("a comma behind the last element", "JSON lines in place of a list", "image is broken", "roles are user"):
        assert told in said
    path = store / "sets/sft/sft.json"
    (source,) = read_sources(DataSettings(files=(str(path),)))
    assert [row["key"] for row in source.conversations] == [
        "mine:part_0:0", "mine:part_0:8", "mine:part_1:0",
    ]  # fmt: skip
    for row in source.conversations:
        assert conversation_problems(row) == []
        for image in row["images"]:
            Image.open(io.BytesIO((source.images_directory / image).read_bytes())).load()
    assert list(problems_of(data_files([str(path)]), LookOptions())) == []
    counts = manifest_of(store, "sft")["counts"]
    assert (counts["question_images"]["count"], counts["tool_images"]["count"]) == (3, 3)
    assert counts["rows_by_licence"] == {"cc-by-4.0": 3}
    assert sum(one["number"] for one in counts["dropped"].values()) == 8


def test_llama_factory_drops_nothing_of_a_prepared_set(toy, tmp_path):
    from cold_start.llama_factory import Pipeline
    from tests.unit.cold_start.test_cold_start import settings_for

    rows = json.loads((toy / "data/sft.json").read_text())
    with_images = next(row for row in rows if row["images"])
    broken = [with_images | {"images": "a.png"}, with_images | {"images": [None]}, {"messages": []}]
    (tmp_path / "cut.png").write_bytes((toy / "data" / with_images["images"][0]).read_bytes()[:-60])
    broken.append(with_images | {"images": ["cut.png", *with_images["images"][1:]]})
    text = json.dumps([*rows[:20], *broken])
    (tmp_path / "part.json").write_text("\ufeff" + text[:-1] + ",]")
    store = tmp_path / "store"
    assert run("prepare", "sft", tmp_path / "part.json", "--image-root", toy / "data", "--out", store) == 0
    path = store / "sets/sft/sft.json"
    settings = settings_for(toy / "models/base")
    examined = examine_data(DataSettings(files=(str(path),)), settings, load_encoder=lambda: Pipeline(settings))
    assert (len(examined.num_tokens), examined.problems) == (20, [])


@pytest.mark.parametrize("path", ["../secret.png", "images/../../secret.png", "{outside}/secret.png"])
def test_no_image_is_taken_from_outside_of_the_folders_that_were_named(tmp_path, path):
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "in/json").mkdir(parents=True)
    (tmp_path / "in/images").mkdir()
    (tmp_path / "in/images/b.jpg").write_bytes(jpeg())
    rows = [conversation(images=[path.format(outside=tmp_path), "images/b.jpg"]), conversation(images=["b.jpg", "b.jpg"])]
    (tmp_path / "in/json/a.json").write_text(json.dumps(rows))
    store = tmp_path / "store"
    assert run("prepare", "sft", tmp_path / "in/json", "--image-root", tmp_path / "in/images", "--out", store) == 0
    assert manifest_of(store, "sft")["counts"]["dropped"]["image is missing"]["number"] == 1
    assert len([one for one in (store / "images").rglob("*") if one.is_file()]) == 1


@pytest.mark.parametrize("path", ["../secret.png", "{outside}/secret.png", "file://{outside}/secret.png"])
def test_no_image_of_an_rl_row_is_taken_from_outside_and_those_of_authors_paths_are_found(tmp_path, path):
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "in/images").mkdir(parents=True)
    (tmp_path / "in/images/b.jpg").write_bytes(jpeg())
    ways = [path.format(outside=tmp_path), "/mnt/of/the/author/images/b.jpg", "images/b.jpg"]
    rows = [rl_row(number, images=[{"bytes": None, "path": way}]) for number, way in enumerate(ways)]
    write_rl(tmp_path / "in/a.parquet", rows)
    assert run("prepare", "rl", tmp_path / "in/a.parquet", "--out", tmp_path / "store") == 0
    counts = manifest_of(tmp_path / "store", "rl")["counts"]
    assert (counts["rows"], counts["different_images"]) == (2, 1)
    assert counts["dropped"]["image is missing"]["number"] == 1
    assert "--image-root names another folder" in counts["dropped"]["image is missing"]["first"]


def test_when_nothing_can_be_used_mended_sources_begin_anew(tmp_path, capsys):
    write_rl(tmp_path / "a.parquet", [rl_row(images=[{"bytes": b"x", "path": None}])])
    assert run("prepare", "rl", tmp_path / "a.parquet", "--out", tmp_path / "store") == 2
    assert "no row is left of a.parquet" in capsys.readouterr().err
    write_rl(tmp_path / "a.parquet", [rl_row()])
    assert run("prepare", "rl", tmp_path / "a.parquet", "--out", tmp_path / "store") == 0


# ---- search cache ----


async def test_the_cache_of_image_searches_answers_from_the_store_as_before(tmp_path):
    from agent.images import ImageFile
    from agent.search.providers.mmsearch_r1 import Provider, Settings

    (tmp_path / "in/hits").mkdir(parents=True)
    (tmp_path / "in/hits/a.jpg").write_bytes(jpeg())
    (tmp_path / "in/hits/cut.jpg").write_bytes(jpeg()[:-400])
    titles = ["first", "lost", "null", "broken", "again"]
    paths = ["/mnt/author/hits/a.jpg", "hits/none.jpg", None, "hits/cut.jpg", "hits/a.jpg"]
    cache = {
        "fvqa_train_0": {"tool_returned_web_title": titles, "cached_images_path": paths, "more": 1},
        "fvqa_train_1": {"tool_returned_web_title": None},
    }
    (tmp_path / "in/cache.json").write_text(json.dumps(cache))
    store = tmp_path / "store"
    assert run("prepare", "search-cache", tmp_path / "in/cache.json", "--out", store) == 0
    provider = Provider(Settings(path=store / "sets/search_cache/search_cache.json"))
    hits = await provider.search_image(ImageFile(png()), item_id="fvqa_train_0", max_hits=5)
    assert [hit.title for hit in hits] == ["first", "again"]
    assert hits[0].thumbnail.data == (tmp_path / "in/hits/a.jpg").read_bytes()
    dropped = manifest_of(store, "search_cache")["counts"]["dropped"]
    assert {kind: one["number"] for kind, one in dropped.items()} == {
        "image is missing": 1, "image is broken": 1, "entry is damaged": 1,
    }  # fmt: skip
    assert run("prepare", "search-cache", tmp_path / "in/cache.json", "--out", store) == 0


# ---- bad input ----


@pytest.mark.parametrize(
    ("make", "arguments", "why"),
    [
        (lambda folder: None, ["rl", "{in}/nothing"], "leads to no file of data"),
        (lambda folder: (folder / "a.json").write_text("[]"), ["rl", "{in}"], "is it `prepare rl` or `prepare sft`?"),
        (lambda folder: (folder / "a.json").write_text("[]"), ["sft", "{in}"], "no row is left of a.json"),
        (lambda folder: (folder / "a.parquet").write_bytes(b"PAR1 no"), ["rl", "{in}"], "was its download cut off?"),
        (lambda folder: write_rows(folder / "a.parquet", [rl_row(data_source=None)]), ["rl", "{in}"], "no data source"),
        (lambda folder: (folder / "a.json").write_text("<html>"), ["search-cache", "{in}/a.json"], "Expecting value"),
        (lambda folder: (folder / "a.json").write_text("[1]"), ["search-cache", "{in}/a.json"], "holds a list"),
        (lambda folder: (folder / "a.json").write_text("{}"), ["search-cache", "{in}/a.json"], "it is empty"),
        (lambda folder: None, ["search-cache", "{in}/none.json"], "expected the JSON file of the cache"),
        (lambda folder: write_rows(folder / "a.parquet", [rl_row()]), ["rl", "{in}", "--name", "../x"], "no name of a set"),
    ],
)
def test_what_cannot_be_prepared_is_said_and_leaves_no_set(tmp_path, capsys, make, arguments, why):
    (tmp_path / "in").mkdir()
    make(tmp_path / "in")
    arguments = [one.replace("{in}", str(tmp_path / "in")) for one in arguments]
    assert run("prepare", *arguments, "--out", tmp_path / "store") == 2
    assert why in capsys.readouterr().err
    assert not list((tmp_path / "store").rglob("manifest.json"))


@pytest.mark.parametrize("note", ['{"format": 2}', "no json", "[]"])
def test_a_store_of_another_format_is_left_alone(tmp_path, capsys, note):
    write_rows(tmp_path / "in.parquet", [rl_row()])
    (tmp_path / "store").mkdir()
    (tmp_path / "store/store.json").write_text(note)
    assert run("prepare", "rl", tmp_path / "in.parquet", "--out", tmp_path / "store") == 2
    assert "store.json" in capsys.readouterr().err
    assert (tmp_path / "store/store.json").read_text() == note


def test_a_full_disk_keeps_what_was_done_and_says_what_to_do(tmp_path, capsys, monkeypatch):
    write_rows(tmp_path / "in.parquet", [rl_row(number, images=[{"bytes": jpeg(), "path": None}]) for number in range(4)])
    put, kept = ImageLibrary.put, []

    def put_until_full(library, data, **how):
        if len(kept) == 2:
            raise OSError(28, "No space left on device")
        kept.append(put(library, data, **how))
        return kept[-1]

    monkeypatch.setattr(ImageLibrary, "put", put_until_full)
    store = tmp_path / "store"
    assert run("prepare", "rl", tmp_path / "in.parquet", "--out", store) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "run the same command again" in said
    assert not (store / "sets/rl/manifest.json").exists()
    monkeypatch.setattr(ImageLibrary, "put", put)
    assert run("prepare", "rl", tmp_path / "in.parquet", "--out", store) == 0
    assert manifest_of(store, "rl")["counts"]["rows"] == 4


def test_two_runs_at_once_do_not_work_on_one_set(tmp_path, capsys):
    import fcntl

    write_rows(tmp_path / "in.parquet", [rl_row()])
    folder = tmp_path / "store/sets/rl"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run("prepare", "rl", tmp_path / "in.parquet", "--out", tmp_path / "store") == 2
    assert "another process prepares" in capsys.readouterr().err
    assert run("prepare", "rl", tmp_path / "in.parquet", "--out", Path(tmp_path / "store")) == 0
