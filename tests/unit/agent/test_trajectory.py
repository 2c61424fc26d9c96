import json

import pytest

from agent.episode import EpisodeLimits, run_episode
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.testing import EchoTool, ScriptedPolicy
from agent.trajectory import TrajectoryWriter, read_records
from tests.conftest import png

OPENING = (Message("user", "<image>q", (ImageFile(png()),)),)


async def an_episode():
    replies = (
        Reply(
            text='<tool_call>{"name": "echo"}</tool_call>',
            finish="stop",
            token_ids=(1, 2),
            logprobs=(-0.5, -0.25),
            num_tokens=2,
        ),
        "<tool_call>{</tool_call>",
        "<answer>é</answer>",
    )
    return await run_episode(OPENING, policy=ScriptedPolicy(*replies), tools={"echo": EchoTool()}, limits=EpisodeLimits())


async def test_reading_gives_back_an_equal_episode(tmp_path):
    episode = await an_episode()
    TrajectoryWriter(tmp_path).write(episode, item_id="a", reward=0.5)
    (record,) = read_records(tmp_path)
    assert record.facts == {"item_id": "a", "reward": 0.5}
    assert record.episode.opening == episode.opening
    assert [turn.reply for turn in record.episode.turns] == [turn.reply for turn in episode.turns]
    assert [turn.observation for turn in record.episode.turns] == [turn.observation for turn in episode.turns]
    assert (record.episode.answer, record.episode.stop_reason) == (episode.answer, episode.stop_reason)


async def test_an_image_is_stored_once(tmp_path):
    writer = TrajectoryWriter(tmp_path)
    for _ in range(3):
        writer.write(await an_episode())
    assert len(list((tmp_path / "images").iterdir())) == 1


async def test_a_line_cut_by_a_kill_loses_only_itself(tmp_path):
    writer = TrajectoryWriter(tmp_path)
    writer.write(await an_episode(), item_id="a")
    path = tmp_path / "episodes.jsonl"
    path.write_bytes(path.read_bytes() + b'{"version": 1, "epis')
    TrajectoryWriter(tmp_path).write(await an_episode(), item_id="b")
    assert [record.facts["item_id"] for record in read_records(tmp_path)] == ["a", "b"]


async def test_a_newer_version_is_refused_and_an_empty_folder_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"episodes\.jsonl"):
        next(read_records(tmp_path))
    (tmp_path / "episodes.jsonl").write_text(json.dumps({"version": 99}) + "\n")
    with pytest.raises(ValueError, match="version 99"):
        next(read_records(tmp_path))
