"""Where data files are looked for, by everything that reads them."""

import importlib.util
import logging
import re
import subprocess
import sys

import pytest

from agent import data_folders
from agent.data_folders import FOLDERS, data_folder
from agent.recipes import RecipeError, read_yaml
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data_folders._say_how_to_move.cache_clear()


def folders():
    return {name: str(data_folder(name)) for name in FOLDERS}


def test_data_lies_in_datasets():
    assert folders() == {name: f"datasets/{name}" for name in ("sft", "rl", "search", "search_cache", "eval")}


def test_one_variable_puts_all_of_it_elsewhere_and_a_kinds_own_variable_that_kind_alone(monkeypatch):
    monkeypatch.setenv("DEEPEYES_DATA", "/disk/d")
    assert folders() == {name: f"/disk/d/{name}" for name in FOLDERS}
    monkeypatch.setenv("DEEPEYES_RL_DATA", "/other/rl")
    assert folders() == {name: f"/disk/d/{name}" for name in FOLDERS} | {"rl": "/other/rl"}


@pytest.mark.parametrize("name", FOLDERS)
def test_files_in_the_old_place_are_found_and_moved_by_the_line_that_is_said_once(name, tmp_path, caplog):
    (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data" / name / "file").write_text("x")
    with caplog.at_level(logging.WARNING):
        assert [str(data_folder(name)) for _ in range(3)] == [f"data/{name}"] * 3
    (said,) = caplog.messages
    made, old, new = re.search(r"mkdir -p (\S+) && mv (\S+) (\S+)/$", said).groups()
    assert (made, old, new) == (str(tmp_path / "datasets"), str(tmp_path / "data" / name), str(tmp_path / "datasets"))
    (tmp_path / "datasets").mkdir()
    (tmp_path / "data" / name).rename(tmp_path / "datasets" / name)
    assert str(data_folder(name)) == f"datasets/{name}"


def test_the_new_place_and_a_place_that_was_named_go_above_the_old_one(tmp_path, monkeypatch, caplog):
    for place in ("data/rl", "datasets/rl"):
        (tmp_path / place).mkdir(parents=True)
    assert str(data_folder("rl")) == "datasets/rl"
    (tmp_path / "datasets/rl").rmdir()
    monkeypatch.setenv("DEEPEYES_DATA", "elsewhere")
    assert str(data_folder("rl")) == "elsewhere/rl"
    assert not caplog.messages


def test_a_recipe_names_a_folder_alone_or_in_the_default_of_a_variable(tmp_path, monkeypatch):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        '{a: "${data.rl}/x", b: "${DEEPEYES_SEARCH_INDEX:-${data.search}/pages.jsonl}", c: "${DEEPEYES_RL_DATA:-data/rl}/y"}'
    )
    assert read_yaml(recipe) == {"a": "datasets/rl/x", "b": "datasets/search/pages.jsonl", "c": "data/rl/y"}
    monkeypatch.setenv("DEEPEYES_SEARCH_INDEX", "/i")
    monkeypatch.setenv("DEEPEYES_RL_DATA", "/r")
    assert read_yaml(recipe) == {"a": "/r/x", "b": "/i", "c": "/r/y"}


def test_an_unknown_folder_lists_those_there_are(tmp_path):
    (tmp_path / "r.yaml").write_text("a: ${data.reward}")
    with pytest.raises(RecipeError, match="r.yaml: there is no folder of data 'reward'; there are sft, rl, search"):
        read_yaml(tmp_path / "r.yaml")


def test_every_published_recipe_reads_where_the_data_is(monkeypatch):
    from cold_start.recipe import load_recipe as load_cold_start
    from reinforcement_learning.recipe import load_recipe as load_rl

    monkeypatch.setenv("DEEPEYES_DATA", "/d")
    for name in ("qwen2_5_vl_7b", "qwen2_5_vl_32b"):
        cold = load_cold_start(name).cold_start
        assert (cold.files, cold.images_directory) == (("/d/sft/json/sft_part_*.json",), "/d/sft")
        recipe = load_rl(name)
        assert {*recipe.run.train_files, *recipe.run.val_files} == {
            f"/d/rl/{file}.parquet" for file in ("perception_all_*", "reason", "search", "vstar_test")
        }
        assert recipe.agent.search["path"] == "/d/search/pages.jsonl"
        assert recipe.agent.image_search["path"].startswith("/d/search_cache/")


def test_downloads_go_where_the_evaluation_looks_for_them(tmp_path, capsys):
    from data import fetch
    from evaluation import suite

    (tmp_path / "datasets/eval").mkdir(parents=True)
    (tmp_path / "datasets/eval/VStarBench.tsv").write_text("")
    with pytest.raises(SystemExit) as exit_:
        fetch.main(["vstar"])  # what is there is not downloaded again
    assert (exit_.value.code, capsys.readouterr().out) == (0, "datasets/eval/VStarBench.tsv\n")
    options = suite.parse(["--benchmarks", "vstar", "--model", "m", "--out", str(tmp_path / "o"), "--dry-run"])
    assert suite.run_suite(options) == 0
    assert re.search(r"vstar +there", capsys.readouterr().out)


def test_nothing_but_this_module_and_git_knows_the_old_places():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    old = re.compile(r"(?<![\w/}'\".-])data/(?:sft|rl|search|search_cache|eval)(?![\w.])")
    known = {".gitignore", "deploy/gpu.Dockerfile.dockerignore", "agent/data_folders.py", "CHANGELOG.md", "data/README.md"}
    for name in files:
        if name not in known and not name.startswith("tests/") and name.endswith((".py", ".md", ".sh", ".yaml")):
            assert not old.search((ROOT / name).read_text()), name


def test_a_folder_of_that_name_hides_no_package(tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    assert importlib.util.find_spec("datasets").origin is not None
