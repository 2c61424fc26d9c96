"""A run skips what is done, goes on where it was, and says what is wrong in words."""

import errno
import importlib.util
from pathlib import Path

import pytest
import yaml

from curation.errors import CurationError
from curation.folders import code_of
from curation.report import write_report
from curation.run import main
from curation.settings import read_curation
from deepeyes.cli import main as deepeyes
from tests.conftest import ROOT
from tests.unit.curation.conftest import photo, row

STEPS = [{"check": {}}, {"dedupe": {}}, {"keep": {}}][:2]


def times(bench):
    return {path.parent.name: path.stat().st_mtime_ns for path in sorted((bench.directory / "run").glob("*/key.json"))}


def test_a_step_whose_settings_parent_and_code_are_unchanged_is_skipped(bench):
    source = bench.source("mine", [row(n) for n in range(3)])
    bench.run([source], STEPS)
    before = times(bench)
    bench.run([source], STEPS)
    assert times(bench) == before


def test_a_changed_setting_makes_its_step_again_and_later_ones_only_if_their_rows_changed(bench):
    source = bench.source("mine", [row(n) for n in range(3)])
    bench.run([source], STEPS)
    before = times(bench)
    bench.run([source], [{"check": {"min_image_px": 30}}, {"dedupe": {}}])
    after = times(bench)
    assert [name for name in before if before[name] != after[name]] == ["01_check"]
    bench.run([source], [{"check": {"max_question_chars": 51}}, {"dedupe": {}}])
    with pytest.raises(CurationError, match="no row is left before step 2, dedupe"):
        bench.run([source], [{"check": {"max_question_chars": 5}}, {"dedupe": {}}])


def test_another_content_of_a_source_makes_everything_again(bench):
    bench.run([bench.source("mine", [row(n) for n in range(3)])], STEPS)
    bench.run([bench.source("mine", [row(n) for n in range(5)])], STEPS)
    assert len(bench.kept("02_dedupe")) == 5


def test_words_in_a_program_repeat_no_step_and_a_changed_program_does(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    texts = [
        '"""One."""\ndef f():\n    return 1\n',
        '"""Other words."""\n# why\ndef f():\n    """Says."""\n\n    return 1\n',
        "def f():\n    return 2\n",
    ]
    found = []
    for number, text in enumerate(texts):
        (tmp_path / f"step_code_{number}.py").write_text(text)
        found.append(code_of(__import__(f"step_code_{number}")))
    assert found[0] == found[1] != found[2]


def test_a_step_that_was_killed_before_its_key_was_written_is_made_again(bench):
    source = bench.source("mine", [row(n) for n in range(3)])
    bench.run([source], STEPS)
    folder = bench.directory / "run/02_dedupe"
    (folder / "key.json").unlink()
    (folder / "kept.parquet").write_bytes(b"half")
    bench.run([source], STEPS)
    assert len(bench.kept("02_dedupe")) == 3


def test_a_full_disk_is_told_and_leaves_nothing_that_looks_finished(bench, monkeypatch):
    source = bench.source("mine", [row(n) for n in range(3)])

    def full(self, target):
        if self.name.startswith(".kept.parquet.") and self.parent.name == "02_dedupe":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, target)

    real = Path.replace
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CurationError, match=r"kept\.parquet cannot be written: No space left.*make room and run again"):
        bench.run([source], STEPS)
    assert not (bench.directory / "run/02_dedupe/key.json").exists()
    assert not list((bench.directory / "run/02_dedupe").glob("*kept*"))
    monkeypatch.undo()
    bench.run([source], STEPS)
    assert len(bench.kept("02_dedupe")) == 3


MINE = {"name": "mine", "path": "in/mine.parquet", "licence": "mit", "group": "x"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [{"chek": {}}]}, r"step 1 is called 'chek'; there are: check, decontaminate, dedupe"),
        ({"steps": [{"check": {"min_px": 3}}]}, r"step 1, check: min_px: .*there are: max_gold_chars.*given: 3"),
        ({"steps": [{"check": {"min_image_px": "many"}}]}, r"min_image_px: .*integer.*given: 'many'"),
        ({"steps": [{"check": {}, "dedupe": {}}]}, r"step 1 has the keys check, dedupe; expected one"),
        ({"steps": []}, r"steps: .*at least 1"),
        ({"sources": []}, r"sources: .*at least 1"),
        ({"sources": [MINE, MINE]}, r"two sources are called mine"),
        ({"sourced": 1}, r"sourced: .*there are: agent, judge, models, name"),
        ({"steps": [{"keep": {"plain.right": {"max": 2}}}]}, r"asks for 'plain.right'; the steps before it count nothing"),
        ({"steps": [{"mix": {"rl": {"x": 0.5, "y": 0.4}, "total": 4}}]}, r"weights of rl add up to 0.9"),
        ({"steps": [{"mix": {"cold": {"x": 1.0}, "total": 4}}]}, r"names the part 'cold'; the steps before it make rl"),
        ({"models": {"t": {"model": "m", "base_urls": ["http://x/v1"], "max_cost_usd": 3}}}, r"max_cost_usd needs usd_per_million"),
        ({"agent": {"max_turn": 3}}, r"agent: max_turn: .*there are: .*max_turns"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_file_is_named_with_its_value_and_what_there_is(tmp_path, change, message):
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump({"name": "toy", "sources": [MINE], "steps": [{"check": {}}]} | change))
    with pytest.raises(CurationError, match=message):
        read_curation(path)


def test_a_missing_source_an_empty_one_and_one_that_is_no_parquet_are_told_by_name(bench):
    with pytest.raises(CurationError, match=r"source 'mine': no data file matches 'in/mine.parquet'"):
        bench.run([MINE], STEPS)
    empty = bench.source("empty", [row(0)])
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(empty["path"])
    pyarrow.parquet.write_table(table.slice(0, 0), empty["path"])
    with pytest.raises(CurationError, match=r"source 'empty', .*no row that can be used; it is empty"):
        bench.run([empty], STEPS)
    Path(empty["path"]).write_bytes(b"<html>")
    with pytest.raises(CurationError, match=r"source 'empty': .*no readable parquet"):
        bench.run([empty], STEPS)


def test_the_command_runs_a_file_and_its_report_shows_what_each_step_dropped_with_its_image(bench, capsys):
    rows = [row(n) for n in range(3)] + [row(0), row(9, gold="x" * 301)]
    path = bench.write([bench.source("mine", rows)], STEPS)
    with pytest.raises(SystemExit) as exit_:
        deepeyes(["curate", "run", str(path), "--workers", "1"])
    assert exit_.value.code in (0, None)
    out = capsys.readouterr().out
    assert "2 dedupe: 4 in, 3 kept, 1 dropped" in out
    text = (bench.directory / "run/report.html").read_text()
    assert "near-duplicate" in text
    assert "gold is too long" in text
    assert text.count("data:image/") >= 5
    main(["report", str(bench.directory / "run"), "--out", str(bench.directory / "page.html")])
    assert (bench.directory / "page.html").read_text().startswith("<!doctype html>")


def test_without_ray_the_command_says_what_to_install(bench, monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else real(name, *more))
    path = bench.write([bench.source("mine", [row(0)])], STEPS)
    with pytest.raises(SystemExit, match=r"--workers ray needs the package ray: pip install 'deepeyes\[rl\]'"):
        main(["run", str(path), "--workers", "ray"])
    with pytest.raises(SystemExit):
        main(["run", str(path), "--workers", "many"])
    assert "--workers: expected a number or `ray`, not 'many'" in capsys.readouterr().err


def test_a_file_of_the_store_that_was_changed_is_found_by_its_name(bench):
    source = bench.source("mine", [row(0), row(1)])
    bench.run([source], [{"keep": {}}])
    first = bench.step("00_sources").kept()[0]
    path = bench.directory / "store/images" / first.images[0][:2] / first.images[0]
    path.chmod(0o644)
    path.write_bytes(photo(99))
    bench.run([source], [{"check": {}}])
    assert bench.reasons("01_check")["i0"].startswith("image is broken: number 1, the store's file is not the one")


def test_a_folder_that_is_no_run_is_told(tmp_path):
    with pytest.raises(CurationError, match=r"holds no finished step; start it with `deepeyes curate run FILE.yaml`"):
        write_report(tmp_path, None)


def test_the_file_in_the_readme_is_understood(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text((ROOT / "curation/README.md").read_text().split("```yaml\n")[1].split("```")[0])
    curation = read_curation(path)
    assert [step.label for step in curation.steps][5:8] == ["plain", "keep", "tools"]
    assert curation.file.models["teacher"].max_cost_usd == 200
