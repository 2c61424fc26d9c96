"""What `deepeyes plan` reckons, held against what the quickstart's RL run wrote."""

from collections import Counter
from dataclasses import replace

import pytest

from agent.trajectory import read_rollouts, tokens
from reinforcement_learning.plan import checkpoint_bytes, recorded_bytes
from reinforcement_learning.plan_values import Assumptions
from reinforcement_learning.recipe import load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def size_of(directory):
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def test_a_checkpoint_is_as_large_as_planned(quickstart):
    recipe = load_recipe("tiny_cpu", [f"run.model={quickstart.directory / 'models/sft'}"])
    written = sorted((quickstart.directory / "rl/checkpoints").glob("global_step_*"))
    assert written
    for checkpoint in written:
        assert size_of(checkpoint) == pytest.approx(checkpoint_bytes(recipe), rel=0.1)


def test_recordings_of_a_step_are_as_large_as_planned_for_episodes_of_that_length(quickstart):
    directory = quickstart.directory / "rl/rollouts"
    episodes = [record.episode for record in read_rollouts(directory)]
    seen, sampled, images, turns, characters = 0, 0, 0, 0, 0
    for episode in episodes:
        ids, mask, _ = tokens(episode)
        seen, sampled, turns = seen + len(ids), sampled + sum(mask), turns + len(episode.turns)
        images += max(Counter(ids).values())
        characters += sum(len(message.text) for message in episode.opening)
        characters += sum(
            len(turn.reply.text) + (len(turn.observation.text) if turn.observation else 0) for turn in episode.turns
        )
    count = len(episodes)
    assume = replace(
        Assumptions(),
        question_tokens=round((seen - images - sampled) / count),
        replies_tokens=round(sampled / count),
        calls=turns / count - 1,
        observation_text_tokens=0,
        observation_images=0.0,
        chars_per_token=characters / (seen - images),
    )
    written = sum(file.stat().st_size for file in directory.glob("episodes*.jsonl"))
    assert written / count == pytest.approx(recorded_bytes(assume, episodes=count) / count, rel=0.1)
