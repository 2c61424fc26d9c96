import json

import pytest
import yaml

from reinforcement_learning.checkpoints import Checkpoints
from reinforcement_learning.recipe import Recipe
from reinforcement_learning.resume import (
    ADVANTAGES_FILE,
    METRICS_FILE,
    RECIPE_FILE,
    ResumeRefused,
    begin,
    check_resume,
    forget_steps_after,
    restarts_data,
)
from reinforcement_learning.trackers import tracker_environment
from tests.unit.reinforcement_learning.test_checkpoints import save


def recipe(directory, *, agent=None, **trainer):
    return Recipe.model_validate(
        {
            "run": {"model": "m", "train_files": ["a.parquet"], "directory": str(directory)},
            "agent": agent or {},
            "verl": {"trainer": trainer, "data": {"seed": 1}},
            "verl_extra": {},
        }
    )


def start(directory, files, today=None, **options):
    return check_resume(directory, today or recipe(directory), [str(file) for file in files], world_size=2, **options)


@pytest.fixture
def run(tmp_path):
    """A run's folder that was killed after step 5; its newest checkpoint is of step 4. Beside it, its data."""
    directory, files = tmp_path / "run", [tmp_path / name for name in ("a.parquet", "b.parquet")]
    for file in files:
        file.write_bytes(file.name.encode() * 100)
    begin(start(directory, files), recipe(directory))
    for step in (2, 4):
        save(Checkpoints(directory / "checkpoints"), step, metrics={"step": step, "from": "checkpoint"})
    for name in (METRICS_FILE, ADVANTAGES_FILE):
        (directory / name).write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, 6)) + '{"ste')
    return directory, files


def test_the_same_recipe_and_data_go_on_from_the_newest_checkpoint_and_say_so(run):
    directory, files = run
    found = start(directory, files)
    assert found.step == 4
    assert "resumes after step 4" in found.message
    assert "goes on where it was" in found.message


@pytest.mark.parametrize(
    "today",
    [
        {"total_training_steps": 99, "save_freq": 1, "test_freq": 2, "logger": ["wandb"], "max_actor_ckpt_to_keep": 5},
        {"agent": {"sandbox_urls": ["http://10.0.0.1:1"], "judge": {"base_urls": ["http://10.0.0.2:2"]}}},
        {"agent": {"max_in_flight": {"policy": 3}, "judge_outage": {"poll_s": 1.0}}},
    ],
)
def test_what_changes_nothing_of_what_is_learned_may_differ(run, today):
    directory, files = run
    assert start(directory, files, recipe(directory, **today)).step == 4


def test_setting_what_verl_takes_anyway_is_no_difference(run):
    directory, files = run
    today = recipe(directory, critic_warmup=0)
    assert start(directory, files, today, verl_default={"trainer.critic_warmup": 0}.get).step == 4
    with pytest.raises(ResumeRefused, match="critic_warmup"):
        start(directory, files, today, verl_default={"trainer.critic_warmup": 1}.get)


@pytest.mark.parametrize("strict", [True, False])
def test_asking_an_llm_for_the_record_may_differ_where_rules_decide_and_only_there(tmp_path, strict):
    def of(log_only):
        return recipe(tmp_path / "run", agent={"judge": {"strict_rules": strict, "log_only": log_only}})

    file = tmp_path / "a.parquet"
    file.write_bytes(b"rows")
    begin(start(tmp_path / "run", [file], of(True)), of(True))
    save(Checkpoints(tmp_path / "run/checkpoints"), 2, metrics={"step": 2})
    if strict:
        assert start(tmp_path / "run", [file], of(False)).step == 2
    else:
        with pytest.raises(ResumeRefused, match="log_only"):
            start(tmp_path / "run", [file], of(False))


def test_another_recipe_is_refused_with_the_difference(run):
    directory, files = run
    with pytest.raises(ResumeRefused) as error:
        start(directory, files, recipe(directory, agent={"max_turns": 4}, critic_warmup=3))
    text = str(error.value)
    for part in ("agent.max_turns: 9 -> 4", "verl.trainer.critic_warmup: not set -> 3", "step 4", "--accept-changes",
                 "run.directory", "go on where it was"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("change", ["content", "fewer", "more", "order"])
def test_other_data_is_refused_with_the_difference_and_if_accepted_starts_from_its_beginning(run, change):
    directory, files = run
    if change == "content":
        files[1].write_bytes(b"other")
    elif change == "fewer":
        files = files[:1]
    elif change == "more":
        (files[0].parent / "c.parquet").write_bytes(b"c")
        files = [*files, files[0].parent / "c.parquet"]
    else:
        files = files[::-1]
    with pytest.raises(ResumeRefused, match="data file") as error:
        start(directory, files)
    expected = {"content": "b.parquet: other", "fewer": "b.parquet: no longer", "more": "c.parquet: new", "order": "order"}
    assert expected[change] in str(error.value)
    accepted = start(directory, files, accept=True)
    assert (accepted.step, accepted.restart_data) == (4, True)
    begin(accepted, recipe(directory))
    assert restarts_data(directory, 4)
    assert not restarts_data(directory, 6)
    # A kill before the next checkpoint must not lose the decision.
    again = start(directory, files)
    assert (again.restart_data, again.changes) == (True, ())


def test_data_that_was_moved_is_the_same_data(run):
    directory, files = run
    moved = [file.rename(file.parent / "run" / file.name) for file in files]
    assert not start(directory, moved).restart_data


def test_a_model_that_was_moved_is_the_same_and_another_one_is_refused(run):
    directory, files = run
    models = [files[0].parent / name for name in ("before", "moved", "other")]
    for number, model in enumerate(models):
        model.mkdir()
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(bytes(1 if number == 2 else 3))

    def with_model(model):
        today = recipe(directory)
        return today.model_copy(update={"run": today.run.model_copy(update={"model": str(model)})})

    begin(start(directory, files, with_model(models[0]), accept=True), with_model(models[0]))
    assert start(directory, files, with_model(models[1])).step == 4
    with pytest.raises(ResumeRefused, match="run.model: another model"):
        start(directory, files, with_model(models[2]))


def test_another_number_of_ranks_is_refused_with_the_way_out(run):
    directory, files = run
    with pytest.raises(ResumeRefused, match="2 ranks.*trains on 8.*deepeyes export"):
        check_resume(directory, recipe(directory), list(map(str, files)), world_size=8, accept=True)


def test_a_look_changes_nothing(run):
    directory, files = run
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    start(directory, files)
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


@pytest.mark.parametrize("name", [METRICS_FILE, ADVANTAGES_FILE])
def test_each_step_is_in_the_metrics_and_advantages_once_after_a_resume(run, name):
    directory, files = run
    begin(start(directory, files), recipe(directory))
    rows = [json.loads(line) for line in (directory / name).read_text().splitlines()]
    assert rows == [{"step": 1}, {"step": 2}, {"step": 3}, {"step": 4}]


def test_a_step_that_was_saved_and_killed_before_its_metrics_gets_them_from_the_checkpoint(tmp_path):
    path = tmp_path / METRICS_FILE
    path.write_text('{"step": 1}\n{"step": 1}\n')
    forget_steps_after(path, 2, {"step": 2, "loss": 0.5})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1}, {"step": 2, "loss": 0.5}]


def test_without_a_checkpoint_a_run_starts_anew_whatever_lies_there(run):
    directory, files = run
    other = recipe(directory, agent={"max_turns": 4})
    found = check_resume(directory, other, list(map(str, files)), world_size=2, mode="disable")
    assert found.step == 0
    begin(found, other)
    assert (directory / METRICS_FILE).read_text() == ""
    assert Checkpoints(directory / "checkpoints").newest() is None
    assert yaml.safe_load((directory / RECIPE_FILE).read_text())["agent"]["max_turns"] == 4


def test_every_start_of_a_run_logs_to_the_same_wandb_run(tmp_path, monkeypatch):
    for name in ("WANDB_RUN_ID", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    first = tracker_environment(tmp_path, ["console", "wandb"], new=False)
    assert first == tracker_environment(tmp_path, ["wandb"], new=False)
    assert (first["WANDB_RESUME"], first["WANDB_DIR"]) == ("allow", str(tmp_path))
    assert tracker_environment(tmp_path, ["wandb"], new=True)["WANDB_RUN_ID"] != first["WANDB_RUN_ID"]
    assert tracker_environment(tmp_path, ["console"], new=False) == {}


def test_real_wandb_goes_on_with_the_same_run(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="needs wandb: bash scripts/setup.sh")
    for name in ("WANDB_RUN_ID", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    ids = []
    for step in (1, 2):
        with monkeypatch.context() as process:
            for name, value in tracker_environment(tmp_path, "wandb", new=False).items():
                process.setenv(name, value)
            run = wandb.init(project="p", name="n", config={})
            run.log({"x": step}, step=step)
            ids.append(run.id)
            run.finish()
    assert len(set(ids)) == 1
    # wandb puts a number behind the second of two that begin within one second.
    assert all(ids[0] in path.name for path in (tmp_path / "wandb").glob("offline-run-*"))
