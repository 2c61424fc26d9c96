import asyncio
import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chat_formats import format_of, transcript
from agent.episode import run_episode
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.record_images import image_path
from agent.records import RolloutFacts
from agent.settings import AgentSettings
from agent.testing import EchoTool, ScriptedPolicy
from agent.trajectory import TrajectoryWriter, read_rollouts, tokens
from tests.conftest import png

FORMAT = format_of("qwen2_5_vl")
OPENING = (Message("user", "<image>q", (ImageFile(png()),)),)


async def an_episode():
    replies = (
        Reply(
            text='<tool_call>{"name": "echo"}</tool_call>',
            finish="stop",
            token_ids=(1, 2),
            logprobs=(-0.5, -0.25),
            num_tokens=2,
            context_ids=(7, 7, 7),
            num_prompt_tokens=3,
        ),
        "<tool_call>{</tool_call>",
        "<answer>é</answer>",
    )
    return await run_episode(OPENING, policy=ScriptedPolicy(*replies), tools={"echo": EchoTool()}, settings=AgentSettings())


async def test_reading_gives_back_an_equal_episode(tmp_path):
    episode = await an_episode()
    TrajectoryWriter(tmp_path).write(episode, RolloutFacts(item_id="a", reward=0.5))
    (record,) = read_rollouts(tmp_path)
    assert record.facts == RolloutFacts(item_id="a", reward=0.5)
    assert record.episode.opening == episode.opening
    assert [turn.reply for turn in record.episode.turns] == [turn.reply for turn in episode.turns]
    assert [turn.observation for turn in record.episode.turns] == [turn.observation for turn in episode.turns]
    assert (record.episode.answer, record.episode.stop_reason) == (episode.answer, episode.stop_reason)
    assert tokens(record.episode) == tokens(episode) == ([7, 7, 7, 1, 2], [0, 0, 0, 1, 1], [0, 0, 0, -0.5, -0.25])
    assert transcript(record.episode, FORMAT) == transcript(episode, FORMAT)


class RecordingPolicy(ScriptedPolicy):
    """Keeps what it was shown and what it said as one text."""

    text = ""

    async def reply(self, new_messages, *, max_tokens=None):
        reply = await super().reply(new_messages)
        said = [*((message.role, message.text) for message in new_messages), ("assistant", reply.primer + reply.text)]
        self.text += "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in said)
        return reply


@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    '<tool_call>{"name": "echo"}</tool_call>',
                    "<tool_call>{</tool_call>",
                    '<tool_call>{"name": "x"}</tool_call>',
                ]
            ),
            st.text(max_size=20),
        ),
        max_size=9,
    )
)
def test_the_text_made_again_from_a_record_is_what_the_policy_saw(replies):
    async def run():
        policy = RecordingPolicy(*replies, *["<answer>a</answer>"] * 9)
        return await run_episode(OPENING, policy=policy, tools={"echo": EchoTool()}), policy

    episode, policy = asyncio.run(run())
    with tempfile.TemporaryDirectory() as directory:
        TrajectoryWriter(Path(directory)).write(episode)
        (record,) = read_rollouts(Path(directory))
    default = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    assert transcript(record.episode, FORMAT) + "\n" == default + policy.text


async def test_half_a_surrogate_pair_in_a_reply_is_kept_and_breaks_nothing(tmp_path):
    episode = await run_episode(OPENING, policy=ScriptedPolicy("\ud83d <answer>a</answer>"), tools={})
    TrajectoryWriter(tmp_path).write(episode)
    (record,) = read_rollouts(tmp_path)
    assert record.episode.turns[0].reply.text == "\ud83d <answer>a</answer>"


async def test_records_of_version_1_are_still_read(tmp_path):
    (tmp_path / "episodes.jsonl").write_text((Path(__file__).parent / "golden/episode_v1.jsonl").read_text())
    (record,) = read_rollouts(tmp_path)
    assert record.episode.turns[0].reply.token_ids == (1, 2)
    assert record.episode.turns[0].reply.logprobs == (-0.5, -0.25)
    assert record.episode.answer == "é"


async def test_an_image_is_stored_once(tmp_path):
    writer = TrajectoryWriter(tmp_path)
    for _ in range(3):
        writer.write(await an_episode())
    assert len(list((tmp_path / "images").iterdir())) == 1


def test_a_record_of_somebody_else_reads_no_file_but_its_images(tmp_path):
    secret = tmp_path / "private.png"
    secret.write_bytes(png())
    (tmp_path / "run/images").mkdir(parents=True)
    named = hashlib.sha256(png()).hexdigest()
    (tmp_path / "run/images" / named).symlink_to(secret)
    for name in ("../../private.png", str(secret), "/dev/zero", named, named.upper(), f"{named}\n", "", "a\0"):
        with pytest.raises(FileNotFoundError):
            image_path(tmp_path / "run", name)
    (tmp_path / "run/images" / named).unlink()
    (tmp_path / "run/images" / named).write_bytes(png())
    assert image_path(tmp_path / "run", named).read_bytes() == png()


async def test_a_line_cut_by_a_kill_loses_only_itself(tmp_path):
    writer = TrajectoryWriter(tmp_path)
    writer.write(await an_episode(), RolloutFacts(item_id="a"))
    path = tmp_path / "episodes.jsonl"
    path.write_bytes(path.read_bytes() + b'{"version": 1, "epis')
    TrajectoryWriter(tmp_path).write(await an_episode(), RolloutFacts(item_id="b"))
    assert [record.facts.item_id for record in read_rollouts(tmp_path)] == ["a", "b"]


async def test_a_newer_version_is_refused_and_an_empty_folder_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"episodes\.jsonl"):
        next(read_rollouts(tmp_path))
    (tmp_path / "episodes.jsonl").write_text(json.dumps({"version": 99}) + "\n")
    with pytest.raises(ValueError, match="version 99"):
        next(read_rollouts(tmp_path))
