import shutil

import pyarrow
import pyarrow.parquet
import pytest

from agent.recipes import RecipeError
from reinforcement_learning.checks import capacity
from reinforcement_learning.checks.capacity import check_disk, check_plan, judge_load
from reinforcement_learning.plan import make_plan
from reinforcement_learning.plan_values import episodes_at_once
from reinforcement_learning.recipe import load_recipe


def free(monkeypatch, size):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=size))


@pytest.mark.parametrize("name", ["qwen2_5_vl_7b", "qwen2_5_vl_7b_1x8", "qwen2_5_vl_32b", "qwen2_5_vl_3b_1gpu"])
def test_a_disk_without_room_for_the_checkpoints_is_refused_with_what_is_needed_and_free(name, tmp_path, monkeypatch):
    recipe = load_recipe(name, [f"run.directory={tmp_path / 'run'}"])
    free(monkeypatch, make_plan(recipe).disk.checkpoints)
    with pytest.raises(
        RecipeError, match=r"has [\d,.]+ GB free; .*run needs [\d,.]+ GB more \(checkpoints [\d,.]+ GB.*recordings of 60"
    ):
        check_disk(recipe)


def test_a_disk_with_room_says_what_is_needed_for_what(tmp_path, monkeypatch):
    recipe = load_recipe("qwen2_5_vl_7b_1x8", [f"run.directory={tmp_path / 'run'}"])
    free(monkeypatch, 10**13)
    assert "needed (checkpoints 298.6 GB" in check_disk(recipe)


def test_what_an_earlier_start_left_there_is_not_asked_for_again(tmp_path, monkeypatch):
    recipe = load_recipe("qwen2_5_vl_3b_1gpu", [f"run.directory={tmp_path}", "agent.record.enabled=false"])
    free(monkeypatch, make_plan(recipe).disk.total - 1000)
    with pytest.raises(RecipeError, match="GB free"):
        check_disk(recipe)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/model.pt").write_bytes(bytes(2000))
    assert "needed" in check_disk(recipe)


def test_recordings_that_are_off_or_thinned_need_less(tmp_path):
    sizes = [
        make_plan(load_recipe("qwen2_5_vl_7b", [f"run.directory={tmp_path}", override])).disk.recording_step
        for override in (
            "agent.record.every=1",
            "agent.record.max_pixels=250000",
            "agent.record.every=4",
            "agent.record.enabled=false",
        )
    ]
    assert sizes[0] > sizes[1] > 0
    assert sizes[2] == pytest.approx(sizes[0] / 4, abs=1)
    assert sizes[3] == 0


def test_a_model_of_unknown_size_is_held_to_a_gigabyte(tmp_path, monkeypatch):
    recipe = load_recipe("qwen2_5_vl_7b", [f"run.directory={tmp_path}", "run.model=someone/some-model"])
    assert "is not known" in check_disk(recipe)
    free(monkeypatch, 10**9)
    with pytest.raises(RecipeError, match="at least 1.1 GB"):
        check_disk(recipe)


def test_the_tiny_recipe_fits_where_tests_run(toy, tmp_path):
    recipe = load_recipe("tiny_cpu", [f"run.directory={tmp_path}", f"run.model={toy / 'models/base'}"])
    assert "GB needed" in check_disk(recipe)


@pytest.mark.parametrize(
    "override",
    [
        "verl.actor_rollout_ref.actor.ppo_max_token_len_per_gpu=24575",
        "verl.actor_rollout_ref.actor.fsdp_config.fsdp_size=12",
        "verl.actor_rollout_ref.rollout.tensor_model_parallel_size=3",
    ],
)
def test_values_that_would_end_the_run_are_refused_by_name(override):
    with pytest.raises(RecipeError, match=override.partition("=")[0]):
        check_plan(load_recipe("qwen2_5_vl_7b", [override]))


def test_a_plan_that_holds_tells_its_notes():
    assert "note: a checkpoint holds the states 4 times" in check_plan(load_recipe("qwen2_5_vl_7b"))


def test_a_validation_larger_than_a_step_decides_how_many_episodes_run_at_once(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["x"] * 300}), tmp_path / "val.parquet")
    overrides = [f"run.val_files=['{tmp_path / 'val.parquet'}']", "verl.data.train_batch_size=4"]
    assert episodes_at_once(load_recipe("tiny_cpu", overrides)) == 32
    assert episodes_at_once(load_recipe("tiny_cpu", [*overrides, "verl.trainer.test_freq=1"])) == 300


def test_the_judges_load_grows_with_votes_and_shrinks_with_servers(monkeypatch):
    monkeypatch.setenv("LLM_AS_A_JUDGE_BASE", "http://a/v1,http://b/v1")
    assert judge_load(load_recipe("qwen2_5_vl_7b")).startswith("at most 4,096 requests a step: 32 s")
    assert judge_load(load_recipe("qwen2_5_vl_7b", ["agent.judge.votes=3"])).startswith(
        "at most 12,288 requests a step: 96 s"
    )


def test_the_check_of_the_disk_asks_the_place_where_recordings_go(tmp_path, monkeypatch):
    recipe = load_recipe(
        "qwen2_5_vl_7b_1x8", [f"run.directory={tmp_path / 'run'}", f"agent.record_directory={tmp_path / 'records'}"]
    )
    monkeypatch.setattr(capacity, "_device", lambda path: 2 if "records" in str(path) else 1)
    monkeypatch.setattr(capacity, "_free", lambda path: 10**13 if "records" not in str(path) else 10**9)
    with pytest.raises(RecipeError, match=r"records needs [\d.]+ GB more \(recordings of 60 steps"):
        check_disk(recipe)
