"""What RL records of a rollout: the same facts under the same names as evaluation and chat."""

import json

import pytest

from agent.episode import UNFINISHED, Episode, StopReason
from agent.image_library import open_library
from agent.images import ImageFile
from agent.messages import Message
from agent.recipes import RecipeError
from agent.record_images import image_path
from agent.recorder import Recorder, RecordSettings
from agent.records import RolloutFacts
from agent.trajectory import read_rollouts
from reinforcement_learning.recipe import load_recipe
from reinforcement_learning.rewards import Reward, RewardItem
from reinforcement_learning.train import agent_values
from reinforcement_learning.verl_adapter.rollouts import RolloutSoFar, record
from reinforcement_learning.verl_adapter.services import recorder
from tests.conftest import png

ROW = {"uid": "u", "session_id": 3, "global_steps": 7, "index": "perception-4", "data_source": "perception"}
TASK = RewardItem(data_source="perception", question="q", gold=("red", "crimson"), item_id="perception-4", extra={"kind": "look"})
REWARD = Reward(score=0.9, accuracy=1.0, format=0.5, decided_by="judge:m", bonus=0.1, cost=0.2, second_opinion="correct")


async def recorded(tmp_path, rollout, *, row=ROW, **more):
    recorder = Recorder(tmp_path, RecordSettings())
    await record(recorder, rollout, row, validation=more.pop("validation", False), **more)
    recorder.close()
    assert recorder.lost == 0
    (found,) = read_rollouts(tmp_path)
    return found


def answered():
    return Episode(opening=(), end=StopReason.ANSWERED, answer="red")


async def test_a_scored_rollout_has_item_step_group_sample_and_all_parts_of_its_reward(tmp_path):
    found = await recorded(tmp_path, RolloutSoFar(answered(), TASK, REWARD, restarts=2))
    assert found.facts == RolloutFacts(
        item_id="perception-4", source="perception", category="look", gold="red or crimson", sample=3, step=7, group="u",
        restarts=2, correct=True, score=1.0, reward=0.9, format=0.5, bonus=0.1, cost=0.2, decided_by="judge:m",
        second_opinion="correct",
    )  # fmt: skip


async def test_a_rollout_lost_on_its_way_to_the_trainer_keeps_its_answer_and_has_no_score(tmp_path):
    found = await recorded(tmp_path, RolloutSoFar(answered(), TASK, REWARD), lost="RuntimeError: the queue is full")
    assert (found.episode.stop_reason, found.episode.answer) == (StopReason.FAILED, "red")
    assert found.episode.failure == "RuntimeError: the queue is full"
    assert (found.facts.correct, found.facts.score, found.facts.reward, found.facts.decided_by) == (None, None, None, "nobody")


@pytest.mark.parametrize("episode", [None, Episode(opening=(), end=UNFINISHED)])
async def test_a_rollout_that_was_never_played_to_its_end_says_what_broke(tmp_path, episode):
    row = ROW | {"raw_prompt": [{"role": "user", "content": "q?"}]}
    found = await recorded(tmp_path, RolloutSoFar(episode), row=row, lost="UnreadableImage: no image")
    assert found.episode.failure == "UnreadableImage: no image"
    assert found.facts == RolloutFacts(
        item_id="perception-4", source="perception", sample=3, step=7, group="u", decided_by="nobody"
    )


async def test_an_outage_is_recorded_with_its_own_reason(tmp_path):
    from agent.errors import PolicyUnavailable

    episode = Episode(opening=())
    episode.fail(PolicyUnavailable("away"))
    found = await recorded(tmp_path, RolloutSoFar(episode, TASK), lost="EpisodeFailed: PolicyUnavailable: away")
    assert found.episode.failure == "PolicyUnavailable: away"


async def test_a_row_without_numbers_is_recorded_all_the_same(tmp_path):
    found = await recorded(tmp_path, RolloutSoFar(answered(), TASK, REWARD), row={"uid": 5, "session_id": "x"}, validation=True)
    assert (found.facts.step, found.facts.sample, found.facts.group, found.facts.validation) == (-1, 0, "5", True)


@pytest.mark.parametrize(("where", "in_store"), [("data", True), ("run", False)])
async def test_a_workers_recorder_puts_new_images_into_the_store_of_the_training_files(tmp_path, where, in_store):
    library = open_library(tmp_path / "store")
    (library.root / "sets/rl").mkdir(parents=True)
    (library.root / "sets/rl/rl.parquet").write_bytes(b"")
    files = f"run.train_files=[{library.root / 'sets/rl/*.parquet'}]"
    recipe = load_recipe("tiny_cpu", [files, f"agent.record.images={where}"])
    settings = tmp_path / "agent_settings.json"
    settings.write_text(json.dumps(agent_values(recipe, tmp_path / "run")))
    own = recorder(str(settings))
    image = ImageFile(png())
    assert await own.record(Episode(opening=(Message("user", "<image>q", (image,)),)), RolloutFacts(step=1, group="g"))
    assert library.has(image.sha256) is in_store
    (found,) = read_rollouts(tmp_path / "run/rollouts")
    assert found.episode.opening[0].images == (image,)
    assert image_path(tmp_path / "run/rollouts", image.sha256).is_relative_to(library.root) is in_store


def test_a_folder_that_is_no_store_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(RecipeError, match=r"agent\.record\.images: .* is no store of images"):
        agent_values(load_recipe("tiny_cpu", [f"agent.record.images={tmp_path}"]), tmp_path)
