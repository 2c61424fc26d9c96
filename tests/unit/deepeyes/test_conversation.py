"""Questions of a conversation: what each begins with, what its sandbox session keeps, and how one ends that was stopped."""

import asyncio
import base64
import io
import json
import re

import httpx
import pytest
from PIL import Image

from agent.images import ImageFile
from agent.openai_chat import ChatClient, ChatSettings
from agent.settings import AgentSettings
from agent.setup import open_setup
from agent.trajectory import TrajectoryWriter, read_rollouts
from code_sandbox.errors import SessionLost
from code_sandbox.testing import FakeSandbox, FakeSession
from code_sandbox.wire import ExecuteResult
from deepeyes.chat.conversation import Conversation
from deepeyes.chat.events import EpisodeEnded, QuestionAsked, TextWritten, TurnObserved, TurnReplied, events_of
from deepeyes.chat.kept_session import KeptSession
from deepeyes.chat.web.rows import row_of
from tests.conftest import png

CELL = "<code>\n```python\n{}\n```\n</code>"


def conversation(replies, sandbox, events, **settings):
    """One whose model says these replies in turn; a coroutine function among them is awaited first. And what it was asked."""
    asked, left = [], list(replies)

    async def handle(request):
        body = json.loads(request.content)
        asked.append(body["messages"])
        reply = left.pop(0)
        if callable(reply):
            reply = await reply()
        if isinstance(reply, httpx.Response):
            return reply
        return httpx.Response(200, json={"choices": [{"message": {"content": reply}, "finish_reason": "stop"}]})

    server = ChatSettings(base_url="http://model/v1", model="m", attempts=1)
    client = ChatClient(server, transport=httpx.MockTransport(handle))
    out = settings.pop("out", None)
    setup = open_setup(AgentSettings(tools=("python",), **settings), sandbox=sandbox)
    return Conversation(setup, client, on_event=events.append, out=out), asked


async def test_what_is_told_is_what_the_record_tells_later(tmp_path):
    events, out = [], TrajectoryWriter(tmp_path)
    replies = [f"<think>t</think>{CELL.format('1')}", "so</think><answer>one</answer>"]
    talk, _ = conversation(replies, FakeSandbox([ExecuteResult(status="ok", stdout="1")]), events, out=out)
    await talk.ask("one?", [ImageFile(png())])
    kinds = [type(event) for event in events]
    assert kinds == [QuestionAsked, TextWritten, TurnReplied, TurnObserved, TextWritten, TurnReplied, EpisodeEnded]
    assert events[4].text == "<think>so</think><answer>one</answer>"  # the primer first
    (record,) = read_rollouts(tmp_path)
    later, kept = list(events_of(record.episode, text="one?", recorded=tmp_path)), []
    assert later[0].opening == events[0].opening
    told = [event for event in events if not isinstance(event, QuestionAsked | TextWritten)]
    # Records round times.
    rows = [[row_of(event, kept.append) | {"seconds": 0} for event in each] for each in (told, later[1:])]
    assert rows[0] == rows[1]


async def test_a_follow_up_begins_with_all_that_was_said_and_later_images_get_later_names():
    sandbox, events = FakeSandbox(), []
    replies = [CELL.format("1"), "<answer>one</answer>", CELL.format("2"), "<answer>two</answer>"]
    talk, asked = conversation(replies, sandbox, events)
    await talk.ask("first", [ImageFile(png())])
    await talk.ask("second", [ImageFile(png(16, 16)), ImageFile(png(9, 9))])
    second = asked[2]
    # The last one is the primer, which goes on after the question.
    assert [message["role"] for message in second] == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    assert second[4]["content"].endswith("<answer>one</answer>")
    assert "(In Python: image_2, image_3.)" in json.dumps(second[5])
    (session,) = sandbox.sessions
    assert not session.closed
    assert [len(cell) < 100 for cell in session.cells] == [True, False, False, True]
    names = [re.match(r"image_(\d)", cell)[1] for cell in session.cells[1:3]]
    assert names == ["2", "3"]
    (data,) = re.findall(r"b64decode\('(.*?)'\)", session.cells[1])
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (16, 16)
    await talk.aclose()
    assert session.closed


async def test_a_stopped_question_is_recorded_as_far_as_it_came_and_the_next_one_follows(tmp_path):
    waits, events = asyncio.Event(), []

    async def never():
        waits.set()
        await asyncio.sleep(60)

    replies = [CELL.format("1"), never, "<answer>after</answer>"]
    talk, asked = conversation(replies, FakeSandbox(), events, out=TrajectoryWriter(tmp_path))
    task = asyncio.create_task(talk.ask("one", [ImageFile(png())]))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events[-1].episode.failure == "Stopped: by the one who asked"
    assert (await talk.ask("two")).answer == "after"
    stopped, after = read_rollouts(tmp_path)
    assert (len(stopped.episode.turns), stopped.episode.failed) == (1, True)
    # An observation that nobody has answered and the next question are one message: sides take turns in every template.
    roles = [message["role"] for message in asked[-1]]
    assert roles == ["system", "user", "assistant", "user", "assistant"]
    assert "two" in json.dumps(asked[-1][3])
    assert after.facts.question == "two"


async def test_a_question_that_got_no_reply_is_no_part_of_the_conversation_and_its_images_go_with_the_next():
    events = []
    talk, asked = conversation([httpx.Response(500), "<answer>yes</answer>", "<answer>again</answer>"], FakeSandbox(), events)
    assert (await talk.ask("lost", [ImageFile(png())])).failed
    assert (await talk.ask("retried")).answer == "yes"
    assert "lost" not in json.dumps(asked[1])
    assert json.dumps(asked[1]).count("data:image") == 1
    assert talk.num_images == 1
    await talk.ask("further")
    assert json.dumps(asked[2]).count("data:image") == 1


async def test_images_with_which_a_question_did_not_fit_do_not_stay():
    long = "This model's maximum context length is 100 tokens. However, your prompt contains 200 tokens."
    full = httpx.Response(400, json={"error": {"message": long}})
    talk, _ = conversation([full, "<answer>yes</answer>"], FakeSandbox(), [])
    episode = await talk.ask("large", [ImageFile(png())])
    assert episode.stop_reason.value == "context_full"
    assert talk.num_images == 0


async def test_an_image_that_is_none_asks_nothing():
    events = []
    talk, asked = conversation([], FakeSandbox(), events)
    with pytest.raises(ValueError, match="image"):
        await talk.ask("q", [ImageFile(b"none")])
    assert (asked, events, talk.num_images) == ([], [], 0)


async def test_a_record_that_cannot_be_written_is_said_and_the_answer_is_not_lost(tmp_path):
    events, out = [], TrajectoryWriter(tmp_path / "run")
    (tmp_path / "run/episodes.jsonl").mkdir()
    talk, _ = conversation(["<answer>a</answer>"], FakeSandbox(), events, out=out)
    assert (await talk.ask("q")).answer == "a"
    assert "could not be recorded" in events[-1].problem
    assert events[-1].recorded is None


# ---- the session ----


class _LosesOnce(FakeSession):
    async def execute(self, code, **options):
        if len(self.cells) == 1:
            raise SessionLost("its lease ended")
        return await super().execute(code, **options)


class _LosingSandbox(FakeSandbox):
    async def open(self, images=(), *, session_id=None):
        kind = _LosesOnce if not self.sessions else FakeSession
        self.sessions.append(kind([], images))
        return self.sessions[-1]


async def test_a_session_whose_lease_has_ended_is_opened_anew_and_the_model_is_told():
    sandbox = _LosingSandbox()
    kept = await KeptSession(sandbox).open([b"one"])
    assert not (await kept.execute("a", timeout_s=1)).state_lost
    assert (await kept.execute("b", timeout_s=1)).state_lost
    assert not (await kept.execute("c", timeout_s=1)).state_lost
    assert [session.cells for session in sandbox.sessions] == [["a"], ["b", "c"]]
    assert sandbox.sessions[1].images == [b"one"]


async def test_a_session_that_was_opened_for_this_cell_and_is_lost_is_an_outage():
    class AlwaysLost(FakeSession):
        async def execute(self, code, **options):
            raise SessionLost("gone")

    class Sandbox(FakeSandbox):
        async def open(self, images=(), *, session_id=None):
            return AlwaysLost([], images)

    with pytest.raises(SessionLost):
        await KeptSession(Sandbox()).execute("a", timeout_s=1)


async def test_images_that_joined_later_are_loaded_again_after_the_process_was_killed():
    sandbox = FakeSandbox([ExecuteResult(status="ok"), ExecuteResult(status="ok"), ExecuteResult(status="killed", state_lost=True)])
    kept = KeptSession(sandbox)
    await kept.open([png()])
    await kept.execute("a", timeout_s=1)
    await kept.open([png(), png(9, 9)])
    await kept.execute("b", timeout_s=1)  # killed
    await kept.execute("c", timeout_s=1)
    (session,) = sandbox.sessions
    loads = [cell.split(" ")[0] for cell in session.cells]
    assert loads == ["a", "image_2", "b", "image_1", "image_2", "c"]


async def test_an_image_that_the_session_does_not_take_makes_a_new_session_with_all_of_them():
    sandbox = FakeSandbox([ExecuteResult(status="ok"), ExecuteResult(status="killed")])
    kept = KeptSession(sandbox)
    await kept.open([png()])
    await kept.execute("a", timeout_s=1)
    await kept.open([png(), png(9, 9)])
    assert (await kept.execute("b", timeout_s=1)).state_lost
    first, second = sandbox.sessions
    assert first.closed
    assert len(second.images) == 2


async def test_a_cell_that_is_stopped_takes_its_session_with_it():
    class Slow(FakeSession):
        async def execute(self, code, **options):
            self.cells.append(code)
            await asyncio.sleep(60)

    class Sandbox(FakeSandbox):
        async def open(self, images=(), *, session_id=None):
            kind = FakeSession if self.sessions else Slow
            self.sessions.append(kind([], images))
            return self.sessions[-1]

    sandbox = Sandbox()
    kept = KeptSession(sandbox)
    task = asyncio.create_task(kept.execute("while True: pass", timeout_s=60))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sandbox.sessions[0].closed
    assert (await kept.execute("b", timeout_s=1)).state_lost
