"""Data is looked at with the eyes of what trains on it: nothing broken is passed over, and nothing of others is acted on."""

from __future__ import annotations

import html.parser
import io
import json
import os
import re
import shlex

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from agent.image_library import ImageLibrary
from data.look.files import data_files
from data.look.rows import LookOptions, in_threads
from data.look.sample import drawn, samples_page
from data.look.validate import problems_of
from data.prepare.command import main as prepare
from deepeyes.cli import main as deepeyes
from tests.conftest import ROOT, png

EVIL = "<script>alert(1)</script>\x1b[31m"


def jpeg(size=(300, 200), colour="red"):
    buffer = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def rl_row(number=0, **changes):
    return {
        "data_source": "perception",
        "prompt": [{"role": "user", "content": f"<image>What colour is {number}? {EVIL}"}],
        "images": [{"bytes": png(), "path": None}],
        "reward_model": {"ground_truth": f"red{number}", "style": "rule"},
        "extra_info": {"index": str(number), "question": f"What colour is {number}?"},
        **changes,
    }


def conversation(number=0, **changes):
    crop = "<think>look</think><code>\n```python\nimage_1.crop((0, 0, 9, 9))\n```\n</code>"
    found = '<think>read</think><tool_call>{"name": "search", "arguments": {"query_list": ["a"]}}</tool_call>'
    return {
        "messages": [
            {"role": "user", "content": f"<image>What is written on {number}?"},
            {"role": "assistant", "content": crop},
            {"role": "user", "content": "<image>"},
            {"role": "assistant", "content": found},
            {"role": "user", "content": "pages"},
            {"role": "assistant", "content": "<think>so</think><answer>A</answer>"},
        ],
        "images": ["images/a.png", "images/b.jpg"],
        **changes,
    }


def write_rl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def data(tmp_path):
    """As published: RL files whose schemas differ, conversations of which most have no image, images beside the JSON's folder."""
    write_rl(tmp_path / "rl/perception.parquet", [rl_row(number) for number in range(6)])
    plain = {"data_source": "search", "prompt": [{"role": "user", "content": "Who?"}], "images": []}
    facts = {"reward_model": {"ground_truth": ["a", "b"]}, "extra_info": {"index": 7}}
    write_rl(tmp_path / "rl/search.parquet", [{**plain, **facts}] * 2)
    (tmp_path / "sft/images").mkdir(parents=True)
    (tmp_path / "sft/images/a.png").write_bytes(png())
    (tmp_path / "sft/images/b.jpg").write_bytes(jpeg())
    text = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "<answer>2</answer>"}]
    conversations = [conversation(0), conversation(1), *({"messages": text, "source": f"s{number}"} for number in range(5))]
    (tmp_path / "sft/json").mkdir()
    (tmp_path / "sft/json/part.json").write_text("\ufeff" + json.dumps(conversations))
    return tmp_path


def run(*words):
    with pytest.raises(SystemExit) as exited:
        deepeyes(["data", *map(str, words)])
    return exited.value.code


# ---- stats ----


def test_statistics_tell_question_images_from_those_of_tools_and_what_else_training_depends_on(data, capsys):
    assert run("stats", data, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rl_rows"], found["conversations"], found["conversations_with_images"]) == (8, 7, 2)
    assert found["data_sources"] == {"perception": 6, "search": 2}
    assert found["sources"]["s3"] == 1
    assert (found["question_images"]["count"], found["tool_images"]["count"]) == (8, 2)
    assert found["tool_images"]["pixels"] == {"p50": 60_000, "p99": 60_000, "max": 60_000}
    assert found["tool_images"]["tokens"] == {"p50": 77, "p99": 77, "max": 77, "sum": 154}  # 308x196 of 28x28
    assert found["tools"] == {
        "none": {"conversations": 5, "calls": 0},
        "python": {"conversations": 2, "calls": 2},
        "search": {"conversations": 2, "calls": 2},
    }
    assert (found["answers"], found["turns_without_action"]) == (7, 0)
    assert found["duplicates"]["rows"] == 1 + 4
    assert found["broken"]["rows"] == 0
    columns = {one["column"]: one["types"] for one in found["schema_differences"]}
    assert columns["extra_info.index"] == {
        "string": [str(data / "rl/perception.parquet")],
        "int64": [str(data / "rl/search.parquet")],
    }
    assert "reward_model.ground_truth" in columns
    assert columns["reward_model.style"]["absent"] == [str(data / "rl/search.parquet")]
    assert found["files"][2]["schema"] == {"images": "absent or list of text", "messages": "list of object", "source": "absent or text"}


def test_statistics_read_as_a_page_for_people(data, capsys):
    write_rl(data / "rl/bad.parquet", [rl_row(data_source=None), rl_row(1)])
    assert run("stats", data / "rl", data / "sft/json/*.json") == 0
    out = capsys.readouterr().out
    assert "perception.parquet: 6 rows" in out
    assert "files differ in extra_info.index: " in out
    assert "2 with images, 5 without" in out
    assert re.search(r"python: 2 conversations, 2 calls", out)
    assert "1: " + str(data / "rl/bad.parquet") + ", row 0: no data source" in out


@pytest.mark.parametrize("paths", [["nothing/*.parquet"], ["README.md"]])
def test_a_path_without_data_says_what_was_expected(paths, capsys):
    assert run("stats", *paths) == 2
    assert "leads to no file of data (.parquet, .json, .jsonl, .ndjson)" in capsys.readouterr().err


def test_a_set_of_a_store_is_read_by_its_names_and_its_other_files_are_no_rows(tmp_path, capsys):
    store = tmp_path / "store"
    name = ImageLibrary(store).put(jpeg())
    (store / "store.json").write_text('{"format": 1}')
    folder = store / "sets/mine"
    row = rl_row(images=[name], source="sa1b")
    row["extra_info_json"] = json.dumps(row.pop("extra_info"))
    write_rl(folder / "rl.parquet", [row])
    write_rl(folder / "dropped.parquet", [{"reason": "x"}])
    (folder / "manifest.json").write_text("{}")
    images = [f"../../images/{name[:2]}/{name}"] * 2
    (folder / "sft.json").write_text(json.dumps([conversation(images=images)]))
    assert run("validate", folder) == 0
    assert "2 rows in 2 files, 3 images decoded, 0 rows broken" in capsys.readouterr().out
    assert run("stats", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["sources"] == {"sa1b": 1, "(not named)": 1}


def test_sizes_that_rows_of_a_store_tell_are_believed_and_only_validate_reads_images(data, tmp_path, capsys):
    store = tmp_path / "store"
    prepare(["rl", str(data / "rl"), "--out", str(store)])
    prepare(["sft", str(data / "sft/json"), "--out", str(store)])
    capsys.readouterr()
    assert run("stats", data / "rl", data / "sft/json", "--json") == 0
    before = json.loads(capsys.readouterr().out)
    for path in (store / "images").glob("*/*"):
        path.unlink()
        path.write_bytes(b"no image any more")
    assert run("stats", store / "sets/rl", store / "sets/sft", "--json") == 0
    after = json.loads(capsys.readouterr().out)
    assert [after[name] for name in ("question_images", "tool_images")] == [before["question_images"], before["tool_images"]]
    assert [after[name]["rows"] for name in ("duplicates", "broken")] == [5, 0]
    assert after["question_images"]["count"] == 8
    assert run("validate", store / "sets/rl", store / "sets/sft") == 1
    assert "image is broken" in capsys.readouterr().out
    for path in (store / "images").glob("*/*"):
        path.unlink()
    assert run("stats", store / "sets/rl", store / "sets/sft") == 0
    assert "image is missing" in capsys.readouterr().out


# ---- validate ----

BAD_ROWS = {
    "image is broken": {"images": [{"bytes": jpeg()[:-500], "path": None}]},
    "image is null": {"images": [{"bytes": b"", "path": None}]},
    "placeholders differ from images": {"images": [{"bytes": png(), "path": None}] * 2},
    "image is missing": {"images": [{"bytes": None, "path": "nowhere/a.png"}]},
    "gold is empty": {"reward_model": {"ground_truth": ""}},
    "gold is null": {"reward_model": {"style": "rule"}},
    "no data source": {"data_source": None},
    "unknown data source": {"data_source": "none_such"},
    "unknown role": {"prompt": [{"role": "tool", "content": "<image>"}]},
}


def test_every_row_that_training_would_refuse_is_listed_with_its_file_number_and_kind(tmp_path, capsys):
    for number, (kind, changes) in enumerate(BAD_ROWS.items()):
        write_rl(tmp_path / f"{number}.parquet", [rl_row(), rl_row(1, **changes)])
        found = list(problems_of(data_files([str(tmp_path / f"{number}.parquet")]), LookOptions()))
        assert [(one.row, one.kind) for one in found] == [(1, kind)], kind
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "0.parquet").read_bytes()[:-300])
    write_rl(tmp_path / "empty.parquet", [rl_row()])
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(tmp_path / "empty.parquet").slice(0, 0), tmp_path / "empty.parquet")
    out = tmp_path / "problems.jsonl"
    assert run("validate", tmp_path / "*.parquet", "--out", out) == 1
    said = [json.loads(line) for line in out.read_text().splitlines()]
    assert {one["kind"] for one in said} == {*BAD_ROWS, "file cannot be read", "file is empty"}
    assert set(said[0]) == {"file", "row", "kind", "detail"}
    printed = capsys.readouterr().out
    assert f"{len(BAD_ROWS)} rows broken; all of them are in {out}" in printed
    assert f"1: gold is empty; such as {tmp_path}/4.parquet, row 1: gold is empty" in printed


def bad_conversations(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(png())
    (tmp_path / "images/b.jpg").write_bytes(jpeg())
    (tmp_path / "images/cut.jpg").write_bytes(jpeg()[:-500])
    says = conversation()["messages"]
    return [
        conversation(),
        conversation(images=["images/a.png", "images/cut.jpg"]),
        conversation(images=["images/a.png", "/their/disk/b.jpg"]),
        conversation(images=[None, "images/a.png"]),
        conversation(images="images/a.png"),
        conversation(messages=says[:3]),
        conversation(messages=[*says[:-1], {"role": "assistant", "content": "I do not know"}]),
        "text",
    ]


def test_conversations_go_through_the_check_of_cold_start_and_their_images_are_decoded(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(bad_conversations(tmp_path)))
    assert run("validate", tmp_path / "a.json") == 1
    out = capsys.readouterr().out
    for row, said in (
        (1, "image is broken: image 2 of 2"),
        (2, "image is missing: '/their/disk/b.jpg' is not there"),
        (3, "image 0 is null; expected a path"),
        (4, "`images` is a str"),
        (5, "roles are user, assistant, user"),
        (6, "turn 5 holds no action"),
        (7, "it is no JSON object"),
    ):
        assert re.search(rf"a\.json, row {row}: .*{re.escape(said)}", out), (row, out)
    assert "row 0:" not in out
    assert "8 rows in 1 files, 10 images decoded, 7 rows broken" in out


def test_a_file_that_is_no_strict_list_is_named_and_a_byte_order_mark_is_not(tmp_path, data, capsys):
    assert run("validate", data) == 0
    text = (data / "sft/json/part.json").read_text(encoding="utf-8-sig")
    (data / "sft/json/part.json").write_text(text[:-1] + ",]")
    (data / "sft/json/lines.jsonl").write_text(json.dumps(conversation(3)) + "\n")
    capsys.readouterr()
    assert run("validate", data / "sft") == 1
    out = capsys.readouterr().out
    assert "part.json: no list of strict JSON: it has a comma behind the last element" in out
    assert "lines.jsonl: no list of strict JSON: it has JSON lines in place of a list" in out


def test_images_of_relative_paths_are_found_where_they_are_said_to_be(tmp_path, capsys):
    (tmp_path / "elsewhere/images").mkdir(parents=True)
    (tmp_path / "elsewhere/images/a.png").write_bytes(png())
    write_rl(tmp_path / "rl/a.parquet", [rl_row(images=["images/a.png"])])
    assert run("validate", tmp_path / "rl") == 1
    assert run("validate", tmp_path / "rl", "--image-root", tmp_path / "elsewhere") == 0


# ---- show ----


def test_a_row_is_shown_as_a_person_reads_it_and_its_images_are_written(data, tmp_path, capsys):
    assert run("show", data / "sft/json/part.json", 1, "--image-out", tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "--- assistant\n<think>look</think><code>\n```python\nimage_1.crop((0, 0, 9, 9))\n```" in out
    assert re.search(r"2: 300x200 px, image/jpeg, [\d,]+ bytes, tool, sha256 [0-9a-f]{64}", out)
    assert (tmp_path / "out/part_1_2.jpeg").read_bytes() == (data / "sft/images/b.jpg").read_bytes()
    assert run("show", data / "rl/perception.parquet", 5) == 0
    out = capsys.readouterr().out
    assert "--- gold\nred5\n" in out
    assert '"item_id": "5"' in out


def test_nothing_that_others_wrote_reaches_the_terminal_as_a_command(data, capsys):
    assert run("show", data / "rl/perception.parquet", 0) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b[31m" in out


@pytest.mark.parametrize(("row", "said"), [(6, "has no row 6; they are counted from 0"), (-2, "has no row -2")])
def test_a_row_that_is_not_there_is_said(data, capsys, row, said):
    assert run("show", data / "rl/perception.parquet", row) == 2
    assert said in capsys.readouterr().err


def test_a_broken_row_is_shown_with_what_is_wrong(tmp_path, capsys):
    write_rl(tmp_path / "a.parquet", [rl_row(reward_model={"ground_truth": ""})])
    assert run("show", tmp_path / "a.parquet", 0) == 0
    assert "BROKEN: gold is empty" in capsys.readouterr().out


# ---- sample ----


class Page(html.parser.HTMLParser):
    """What a browser would load or run."""

    def __init__(self):
        super().__init__()
        self.tags, self.sources, self.policy = [], [], ""

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name in attributes)
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]


def test_a_page_of_samples_holds_its_images_and_runs_and_loads_nothing(data, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert run("sample", data, "-n", 100, "--out", out) == 0
    text = out.read_text()
    page = Page()
    page.feed(text)
    assert page.tags.count("article") == 15
    assert page.tags.count("img") == 10
    assert "script" not in page.tags
    assert all(source.startswith("data:image/") for source in page.sources)
    assert page.policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "&lt;script&gt;alert(1)" in text
    assert "Gold: <b>red3</b>" in text


def test_the_same_seed_draws_the_same_rows_and_each_row_is_as_likely(data):
    files = data_files([str(data)])

    def rows(seed):
        return [(row.file, row.row) for row in drawn(files, LookOptions(), 5, seed)]

    assert rows(1) == rows(1) != rows(2)
    seen = {row for seed in range(40) for row in rows(seed)}
    assert len(seen) == 15


def test_large_and_broken_images_keep_a_page_small(tmp_path):
    noise = io.BytesIO()
    Image.effect_noise((2000, 1500), 90).convert("RGB").save(noise, "PNG")
    padded = png() + b"x" * (1 << 20)
    rows = [rl_row(images=[noise.getvalue()]), rl_row(1, images=[padded]), rl_row(2, images=[jpeg()[:-300]])]
    rows.append(rl_row(3, prompt=[{"role": "user", "content": "<image>" * 20}], images=[png()] * 20))
    write_rl(tmp_path / "a.parquet", rows)
    text = samples_page(drawn(data_files([str(tmp_path)]), LookOptions(), 9, 0), "x")
    assert len(text) < 400_000
    assert "not shown: " in text
    assert text.count("<article>") == 4


# ---- how ----


def test_no_more_rows_are_held_than_threads_need():
    drawn_items, most = 0, 0

    def items():
        nonlocal drawn_items
        for drawn_items in range(1, 301):  # noqa: UP028 - it is counted outside
            yield drawn_items

    for number, item in enumerate(in_threads(lambda item: item, items()), start=1):
        assert item == number
        most = max(most, drawn_items - number)
    assert most <= 4 * len(os.sched_getaffinity(0))


def test_the_commands_of_the_readme_run_as_they_stand(data, monkeypatch, capsys):
    (data / "datasets").mkdir()
    for name in ("rl", "sft"):
        (data / name).rename(data / "datasets" / name)
    monkeypatch.chdir(data)
    text = (ROOT / "data/README.md").read_text()
    commands = re.findall(r"^deepeyes data ((?:stats|show|validate|sample) .*)", text, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        with pytest.raises(SystemExit) as exited:
            deepeyes(["data", *shlex.split(command, comments=True)])
        assert exited.value.code == 0, command
    assert {"problems.jsonl", "samples.html"} <= {path.name for path in data.iterdir()}
