"""What is sampled when rollouts are lost: verl's real buffer classes under our rules, TransferQueue replaced by a dict."""

import json
import threading
from types import SimpleNamespace

import pytest

from reinforcement_learning.failed_groups import RunEnded
from reinforcement_learning.recipe import RECIPES, load_recipe
from viewer import advantages as viewer_advantages

# Importing verl takes ten seconds.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

RECIPE_NAMES = sorted(path.stem for path in RECIPES.glob("[!_]*.yaml"))


@pytest.fixture(autouse=True)
def run(monkeypatch, tmp_path):
    """Where verl's own default puts a run."""
    monkeypatch.chdir(tmp_path)


class DictQueue:
    """The parts of TransferQueue that the buffer uses. Clearing what is not there is an error, as in the real one."""

    def __init__(self):
        self.tags, self.scores = {}, {}

    def kv_list(self, *_):
        return {"train": {key: dict(tag) for key, tag in self.tags.items()}}

    def kv_clear(self, keys, partition_id):
        for key in keys:
            del self.tags[key]

    def kv_batch_get(self, keys, partition_id, select_fields):
        return {"extra_fields": [{"reward_extra_info": {"acc": self.scores[key]}} for key in keys]}


def trainer_of(recipe_name, values=None):
    """What the task runner would build, as far as its buffer."""
    from omegaconf import OmegaConf
    from verl.trainer.ppo.v1 import get_trainer_cls

    from reinforcement_learning.train import verl_extra_values
    from reinforcement_learning.verl_adapter.launch import compose_config
    from reinforcement_learning.verl_adapter.trainer import take_place

    recipe = load_recipe(recipe_name, values or [])
    config = compose_config(recipe.verl, verl_extra_values(recipe))
    OmegaConf.set_struct(config, True)
    take_place()
    name = config.trainer.v1.trainer_mode
    trainer = object.__new__(get_trainer_cls(name))
    trainer.config, trainer.trainer_mode = config, name
    return trainer


class Simulation:
    """Prompts whose rollouts end at once, as `lost(group, rollout)` and `accuracy(group, rollout)` say."""

    def __init__(self, lost, *, accuracy=lambda g, i: i % 2, groups=8, rollouts=8, values=()):
        self.lost, self.accuracy, self.groups, self.rollouts = lost, accuracy, groups, rollouts
        self.queue, self.drawn = DictQueue(), 0
        self.values = [f"verl.data.train_batch_size={groups}", f"verl.actor_rollout_ref.rollout.n={rollouts}", *values]

    def draw(self, number):
        for group in range(self.drawn, self.drawn + number):
            lost = [i for i in range(self.rollouts) if self.lost(group, i)]
            for i in set(range(self.rollouts)) - set(lost):
                self.queue.tags[f"g{group}_{i}_0"] = {"status": "success", "seq_len": 10}
                self.queue.scores[f"g{group}_{i}_0"] = self.accuracy(group, i)
            status = "failure" if lost else "finished"
            reasons = {f"lost_{i}": f"ValueError: no digits in group {group}" for i in lost}
            self.queue.tags[f"g{group}"] = {"is_prompt": True, "status": status, "global_steps": 1, **reasons}
        self.drawn += number

    def sample(self, monkeypatch, timeout_s=20):
        from verl.trainer.ppo.v1 import replay_buffer

        monkeypatch.setattr(replay_buffer, "tq", self.queue)
        trainer = trainer_of("tiny_cpu", self.values)
        trainer._add_prompts_to_generate = self.draw
        buffer = trainer._build_replay_buffer()
        buffer.poll_interval = 0.01
        self.draw(self.groups)
        found = SimpleNamespace()

        def go():
            try:
                batch, found.metrics = buffer.sample(global_steps=1, partition_id="train", batch_size=self.groups)
                found.by_group = {}
                for key in batch.keys:
                    found.by_group.setdefault(key.split("_")[0], []).append(key)
            except BaseException as error:  # noqa: BLE001 - raised again in the test's own thread
                found.error = error

        thread = threading.Thread(target=go, daemon=True)
        thread.start()
        thread.join(timeout_s)
        assert not thread.is_alive(), f"still drawing after {timeout_s} s and {self.drawn} prompts"
        if hasattr(found, "error"):
            raise found.error
        return found


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_every_recipe_gets_the_synchronous_buffer_and_our_trainer(name):
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

    from reinforcement_learning.verl_adapter.replay import EpisodeBuffer
    from reinforcement_learning.verl_adapter.trainer import EpisodeTrainer

    trainer = trainer_of(name)
    assert type(trainer) is EpisodeTrainer
    assert trainer.trainer_mode == "sync"
    buffer = trainer._build_replay_buffer()
    assert type(buffer) is EpisodeBuffer
    assert isinstance(buffer, ReplayBuffer)
    assert not isinstance(buffer, ReplayBufferAsync)
    assert list(trainer.config.actor_rollout_ref.actor.checkpoint.save_contents) == ["model", "optimizer", "extra"]
    assert trainer.config.trainer.max_actor_ckpt_to_keep == 2


@pytest.mark.parametrize("more", [(), ("agent.failed_groups.refill=false",), ("verl.algorithm.filter_groups.enable=true",
                         "verl.algorithm.filter_groups.metric=acc")])  # fmt: skip
def test_one_lost_rollout_costs_its_group_one_rollout_and_nothing_else(monkeypatch, more):
    simulation = Simulation(lambda g, i: (g, i) == (0, 3), values=more)
    found = simulation.sample(monkeypatch)
    assert sorted(map(len, found.by_group.values())) == [7] + 7 * [8]
    assert simulation.drawn == 8
    assert found.metrics["episode/failed_frac"] == 1 / 64
    assert found.metrics["episode/lost_ValueError_frac"] == 1 / 64
    assert found.metrics["episode/dropped_groups"] == 0


@pytest.mark.parametrize("left", [0, 1])
def test_a_group_with_fewer_than_two_survivors_is_dropped_replaced_and_written_down(monkeypatch, tmp_path, left):
    simulation = Simulation(lambda g, i: g == 2 and i >= left)
    found = simulation.sample(monkeypatch)
    assert "g2" not in found.by_group
    assert "g8" in found.by_group
    assert [len(keys) for keys in found.by_group.values()] == 8 * [8]
    assert found.metrics["episode/dropped_groups"] == found.metrics["episode/refilled_groups"] == 1
    assert found.metrics["episode/failed_frac"] == (8 - left) / 72
    assert not any(key.startswith("g2") for key in simulation.queue.tags)
    (file,) = tmp_path.rglob("dropped_groups.jsonl")
    (line,) = file.read_text().splitlines()
    lost = ["ValueError: no digits in group 2"] * (8 - left)
    assert json.loads(line) == {"step": 1, "group": "g2", "survivors": left, "reasons": lost}


def test_without_refilling_the_step_is_smaller(monkeypatch):
    simulation = Simulation(lambda g, i: g == 2 and i > 0, values=["agent.failed_groups.refill=false"])
    found = simulation.sample(monkeypatch)
    assert len(found.by_group) == 7
    assert "g2" not in found.by_group
    assert simulation.drawn == 8


@pytest.mark.parametrize(
    "more", [(), ("verl.algorithm.filter_groups.enable=true", "verl.algorithm.filter_groups.metric=acc")]
)
def test_a_fault_in_every_episode_ends_the_run_with_the_reasons(monkeypatch, more):
    simulation = Simulation(lambda g, i: True, values=more)
    with pytest.raises(RunEnded, match="32 groups in a row.*256 x ValueError: no digits"):
        simulation.sample(monkeypatch)
    assert simulation.drawn <= 48


def test_without_refilling_a_step_of_which_nothing_is_left_ends_the_run(monkeypatch):
    simulation = Simulation(lambda g, i: i > 0, values=["agent.failed_groups.refill=false"])
    with pytest.raises(RunEnded, match="no group of this step.*56 x ValueError"):
        simulation.sample(monkeypatch)


FILTER = ("verl.algorithm.filter_groups.enable=true", "verl.algorithm.filter_groups.metric=acc")


def test_the_group_filter_looks_at_the_survivors_of_a_group(monkeypatch):
    # Group 1 lost its only wrong rollout: those that are left are all right, and teach nothing.
    simulation = Simulation(lambda g, i: (g, i) == (1, 0), accuracy=lambda g, i: 1 if g == 1 and i else i % 2, values=FILTER)
    found = simulation.sample(monkeypatch)
    assert "g1" not in found.by_group
    assert len(found.by_group) == 8


@pytest.mark.parametrize(("limit", "most"), [(0, 160), (3, 24)])
def test_a_filter_that_removes_every_group_ends_the_run(monkeypatch, limit, most):
    values = [*FILTER, f"verl.algorithm.filter_groups.max_num_gen_batches={limit}"]
    simulation = Simulation(lambda g, i: False, accuracy=lambda g, i: 1, values=values)
    with pytest.raises(RunEnded, match="differ in `acc`"):
        simulation.sample(monkeypatch)
    assert simulation.drawn <= most


def test_failed_and_filtered_groups_together_end_the_run_too(monkeypatch):
    simulation = Simulation(lambda g, i: g % 2 == 0, accuracy=lambda g, i: 0, values=FILTER)
    with pytest.raises(RunEnded):
        simulation.sample(monkeypatch)
    assert simulation.drawn <= 160


def advantages(rewards, groups, by_deviation=True, name=None):
    import numpy as np
    import torch
    from omegaconf import OmegaConf
    from verl.trainer.ppo.core_algos import get_adv_estimator_fn

    from reinforcement_learning.verl_adapter.advantages import NAME

    mask = torch.ones(len(rewards), 5)
    mask[:, 3] = 0
    token_rewards = torch.zeros(len(rewards), 5)
    token_rewards[:, 4] = torch.tensor(rewards)
    function = get_adv_estimator_fn(name or NAME)
    options = {"norm_adv_by_std_in_grpo": by_deviation}
    more = options if name else {"config": OmegaConf.create(options)}
    found, _ = function(token_level_rewards=token_rewards, response_mask=mask, index=np.array(groups, dtype=object), **more)
    return found


@pytest.mark.parametrize("reward", [0.8, 0.2, 0.1, 1.0, 0.0, 0.72])
@pytest.mark.parametrize("size", [2, 7, 15, 16])
def test_equal_rewards_give_no_advantage(reward, size):
    assert advantages([reward] * size, ["a"] * size).abs().max() == 0


@pytest.mark.parametrize("reward", [0.2, 1.0])
@pytest.mark.parametrize("by_deviation", [True, False])
def test_a_rollout_that_is_alone_gets_no_advantage(reward, by_deviation):
    found = advantages([reward, 0.8, 0.2], ["lone", "b", "b"], by_deviation)
    assert found[0].abs().max() == 0
    assert found[1].abs().max() > 0


@pytest.mark.parametrize("by_deviation", [True, False])
def test_unequal_rewards_give_verls_advantage(by_deviation):
    rewards = [0.8, 0.2, 1.0, 0.0, 0.72, 0.8, 0.2, 0.2, 1.0]
    groups = ["a", "b", "a", "b", "a", "a", "b", "a", "b"]
    ours, theirs = advantages(rewards, groups, by_deviation), advantages(rewards, groups, by_deviation, name="grpo")
    assert (ours - theirs).abs().max() < 1e-6
    assert (ours[:, 3] == 0).all()


@pytest.mark.parametrize("by_deviation", [True, False])
@pytest.mark.parametrize("rewards", [[0.8, 0.2, 1.0, 0.0, 0.72], [0.8] * 16, [0.2], [1.0, 0.9999999, 0.0]])
def test_the_viewer_computes_the_trainers_advantages(rewards, by_deviation):
    shown = viewer_advantages.advantages(rewards, by_deviation=by_deviation)
    assert shown == pytest.approx(advantages(rewards, ["a"] * len(rewards), by_deviation)[:, 4].tolist(), abs=1e-4)


def test_verl_still_gives_equal_rewards_and_lone_rollouts_an_advantage():
    """Else `advantages.py` may go."""
    assert advantages([0.8] * 16, ["a"] * 16, name="grpo").abs().max() > 0
    assert advantages([0.2], ["a"], name="grpo").abs().max() > 0
