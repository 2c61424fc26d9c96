"""Saving and loading of the real trainer, with a worker group that only writes files."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from reinforcement_learning.checkpoints import Checkpoints
from reinforcement_learning.recipe import load_recipe

# Importing verl takes ten seconds.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]


class Killed(BaseException):
    pass


class Workers:
    """What the trainer asks of its training workers; `dies` cuts a save off after its first file."""

    def __init__(self, directory):
        self.checkpoints, self.dies, self.loaded, self.kept = Checkpoints(directory), False, None, []

    def save_checkpoint(self, path, _, step, max_ckpt_to_keep=None):
        self.kept.append((len(self.checkpoints.complete()), max_ckpt_to_keep))
        actor = Path(path)
        actor.mkdir(parents=True)
        (actor / "fsdp_config.json").write_text(json.dumps({"world_size": 1}))
        (actor / "model_world_size_1_rank_0.pt").write_bytes(bytes(100))
        if self.dies:
            raise Killed
        (actor / "optim_world_size_1_rank_0.pt").write_bytes(bytes(200))

    def load_checkpoint(self, local_path, **_):
        self.loaded = Path(local_path)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Trainers of one run, each as after a new start."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    from reinforcement_learning.train import verl_extra_values
    from reinforcement_learning.verl_adapter import trainer as module
    from reinforcement_learning.verl_adapter.launch import compose_config

    monkeypatch.setattr(module, "episodes_of", lambda *_: [])
    monkeypatch.setattr(module, "step_metrics", lambda *_: {"episode/count": 8.0})
    directory = tmp_path / "run/checkpoints"
    directory.mkdir(parents=True)

    def new(rows=20):
        recipe = load_recipe("tiny_cpu", [f"verl.trainer.default_local_dir={directory}"])
        config = compose_config(recipe.verl, verl_extra_values(recipe))
        trainer = module.EpisodeTrainer(config)
        trainer.actor_rollout_wg = Workers(directory)
        trainer.train_dataloader = StatefulDataLoader(list(range(rows)), batch_size=1)
        trainer.global_steps = 0
        return trainer

    return SimpleNamespace(new=new, directory=directory, run=directory.parent)


def advance(trainer, steps, rows=5):
    loader = iter(trainer.train_dataloader)
    for _ in range(steps):
        trainer.global_steps += 1
        for _ in range(rows):
            next(loader)
        trainer._step_metrics = {"loss": 1.0}
        trainer._save_checkpoint()
    return loader


def test_a_save_holds_no_rollouts_and_older_ones_go_only_after_it(make):
    trainer = make.new()
    calls = []
    trainer.checkpoint_callback = SimpleNamespace(on_save=lambda **said: calls.append(said["checkpoint_dir"]))
    advance(trainer, 4)
    # How many complete ones there were while each was written; verl's own rotation is off.
    assert trainer.actor_rollout_wg.kept == [(0, None), (1, None), (2, None), (2, None)]
    assert [checkpoint.step for checkpoint in Checkpoints(make.directory).complete()] == [3, 4]
    assert calls[-1] == str(make.directory / "global_step_4")
    assert sorted(path.name for path in (make.directory / "global_step_4").iterdir()) == [
        "actor", "complete.json", "data.pt", "metrics.json"
    ]  # fmt: skip
    assert trainer.config.trainer.default_local_dir == str(make.directory)


def test_a_save_that_is_cut_off_is_not_resumed_from_whatever_the_tracker_says(make):
    trainer = make.new()
    advance(trainer, 2, rows=3)
    trainer.actor_rollout_wg.dies = True
    with pytest.raises(Killed):
        advance(trainer, 1)
    (make.directory / "latest_checkpointed_iteration.txt").write_text("3")
    again = make.new()
    again._load_checkpoint()
    assert again.global_steps == 2
    assert again.actor_rollout_wg.loaded == make.directory / "global_step_2/actor"


def test_the_data_goes_on_where_it_was(make):
    loader = advance(make.new(), 2)
    expected = int(next(loader))
    again = make.new()
    again._load_checkpoint()
    assert int(next(iter(again.train_dataloader))) == expected == 10


def test_the_data_starts_from_its_beginning_if_that_was_decided(make):
    advance(make.new(), 2)
    (make.run / "resume.json").write_text(json.dumps({"step": 2, "restart_data": True}))
    # Fewer rows than were read before: verl alone ends with StopIteration.
    again = make.new(rows=4)
    again._load_checkpoint()
    assert again.global_steps == 2
    assert [int(row) for row in again.train_dataloader] == [0, 1, 2, 3]


def test_a_new_run_starts_from_the_first_step(make):
    trainer = make.new()
    trainer._load_checkpoint()
    assert trainer.global_steps == 0
    assert trainer.actor_rollout_wg.loaded is None
    assert os.listdir(make.directory) == []
