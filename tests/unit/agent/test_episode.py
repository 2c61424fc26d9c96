import asyncio
import random
from unittest.mock import AsyncMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.episode import Episode, StopReason, run_episode
from agent.errors import ContextFull, PolicyUnavailable, SandboxAway, ToolBroken, ToolUnavailable
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer, render_code_observation, render_error_observation
from agent.scheduling import Slots
from agent.settings import AgentSettings
from agent.testing import EchoTool, LostTool, ScriptedPolicy
from agent.tools import PROGRAM_LEFT_S, ToolResult
from agent.tools.python import PythonTool
from code_sandbox.errors import SandboxRequestRefused, SessionLost
from code_sandbox.testing import FakeSandbox, FakeSession, LostSandbox
from code_sandbox.wire import CellError, CellImage, ExecuteResult
from tests.conftest import png
from tests.pictures import QWEN2_VL_RULE

OPENING = (Message("system", "s"), Message("user", "<image>q", (ImageFile(png()),)))
CODE = "<think>t</think>\n<code>\n```python\n1\n```\n</code>"
ANSWER = "<think>t</think>\n<answer>red</answer>"
SEARCH = '<tool_call>{"name": "echo", "arguments": {"a": 1}}</tool_call>'


async def play(*replies, tools=None, **limits) -> tuple[Episode, ScriptedPolicy]:
    policy = ScriptedPolicy(*replies)
    episode = await run_episode(OPENING, policy=policy, tools=tools or {}, settings=AgentSettings(**limits))
    return episode, policy


async def test_an_answer_ends_the_episode():
    episode, policy = await play(ANSWER)
    assert (episode.stop_reason, episode.answer, len(episode.turns)) == (StopReason.ANSWERED, "red", 1)
    assert policy.seen == list(OPENING)


async def test_the_policy_sees_each_message_once():
    echo = EchoTool()
    episode, policy = await play(SEARCH, SEARCH, ANSWER, tools={"echo": echo})
    assert policy.seen == [*OPENING, episode.turns[0].observation, episode.turns[1].observation]
    assert echo.calls == [{"a": 1}, {"a": 1}]
    assert echo.closed


@pytest.mark.parametrize(
    ("reply", "stop"),
    [
        ("no action", StopReason.NO_ACTION),
        (Reply(text="<think>and on", finish="length"), StopReason.LENGTH),
        (Reply(text="", finish="stop"), StopReason.LENGTH),
        (Reply(text=SEARCH, finish="length"), StopReason.LENGTH),
        (ContextFull("full"), StopReason.CONTEXT_FULL),
        (PolicyUnavailable("down"), StopReason.FAILED),
    ],
)
async def test_every_end_has_a_name(reply, stop):
    episode, _ = await play(reply, tools={"echo": EchoTool()})
    assert episode.stop_reason is stop
    assert episode.answer is None


async def test_a_call_in_the_last_turn_is_not_run():
    echo = EchoTool()
    episode, _ = await play(SEARCH, SEARCH, tools={"echo": echo}, max_turns=2)
    assert episode.stop_reason is StopReason.MAX_TURNS
    assert len(echo.calls) == 1


async def test_a_model_mistake_is_told_to_the_model_and_counted():
    episode, policy = await play(
        "<tool_call>{</tool_call>", '<tool_call>{"name": "fly"}</tool_call>', ANSWER, tools={"echo": EchoTool()}
    )
    told = [message.text for message in policy.seen[2:]]
    assert told[0].startswith("Error: Invalid tool call format")
    assert "'fly' is not one of echo" in told[1]
    assert (episode.stop_reason, episode.tool_errors) == (StopReason.ANSWERED, 2)


async def test_a_lost_sandbox_ends_the_episode_without_blaming_the_model():
    tool = PythonTool(LostSandbox(), AgentSettings(python_timeout_s=1.0))
    episode, _ = await play(CODE, ANSWER, tools={"python": tool})
    assert episode.stop_reason is StopReason.FAILED
    assert "sandbox is down" in episode.failure
    assert episode.tool_errors == 0


async def test_a_tool_that_cannot_be_closed_changes_nothing():
    episode, _ = await play(ANSWER, tools={"lost": LostTool()})
    assert episode.stop_reason is StopReason.ANSWERED


class Hanging(ScriptedPolicy):
    """An engine that never answers once its script is at its end."""

    async def reply(self, new_messages, *, max_tokens=None):
        if not self._replies:
            await asyncio.sleep(60)
        return await super().reply(new_messages)


@pytest.mark.parametrize("limits", [{"episode_deadline_s": 0.05}, {"reply_deadline_s": 0.05}])
@pytest.mark.parametrize("replies", [[], [SEARCH], [SEARCH, SEARCH]])
async def test_an_engine_that_hangs_is_an_outage_whatever_the_deadline_and_its_tools_are_closed(limits, replies):
    echo = EchoTool()
    episode = await run_episode(OPENING, policy=Hanging(*replies), tools={"echo": echo}, settings=AgentSettings(**limits))
    assert (episode.stop_reason, len(episode.turns)) == (StopReason.FAILED, len(replies))
    assert episode.failure == "PolicyUnavailable: the engine gave no reply in 0.05 s"
    assert echo.closed


class Ran(EchoTool):
    """A tool whose program runs for so long, and which takes longer because it waits."""

    def __init__(self, program_s, waits_s=0.0):
        super().__init__()
        self.program_s, self.waits_s, self.left_s = program_s, waits_s, []

    async def run(self, arguments):
        self.left_s.append(PROGRAM_LEFT_S.get())
        await asyncio.sleep(self.waits_s)
        return ToolResult(render_error_observation("ran"), program_s=self.program_s)


async def test_the_deadline_is_of_the_models_programs_together_and_each_knows_what_is_left():
    tool = Ran(0.2)
    episode, _ = await play(*[SEARCH] * 4, ANSWER, tools={"echo": tool}, episode_deadline_s=0.5)
    assert (episode.stop_reason, len(episode.turns)) == (StopReason.DEADLINE, 3)
    assert [round(left_s, 6) for left_s in tool.left_s] == [0.5, 0.3, 0.1]
    assert episode.turns[-1].observation is not None
    assert episode.program_s == pytest.approx(0.6)


async def test_waiting_for_slot_engine_sandbox_or_search_never_counts_against_the_model():
    class Late(ScriptedPolicy):
        async def reply(self, new_messages, *, max_tokens=None):
            await asyncio.sleep(0.06)
            return await super().reply(new_messages)

    slots = Slots({"echo": 1, "policy": 1})
    episodes = await asyncio.gather(
        *(
            run_episode(
                OPENING,
                policy=Late(SEARCH, SEARCH, ANSWER),
                tools={"echo": Ran(0.01, waits_s=0.06)},
                settings=AgentSettings(episode_deadline_s=0.1),
                slots=slots,
            )
            for _ in range(4)
        )
    )
    assert [episode.stop_reason for episode in episodes] == [StopReason.ANSWERED] * 4
    assert min(episode.wall_s for episode in episodes) > 0.3
    assert episodes[0].waits_s["engine"] > 0.15
    assert episodes[0].waits_s["tools"] > 0.1
    assert sum(episode.waits_s["slot"] for episode in episodes) > 0.3


async def test_cancelling_an_episode_closes_its_session():
    class Slow:
        async def reply(self, new_messages, *, max_tokens=None):
            await asyncio.sleep(60)

    echo = EchoTool()
    task = asyncio.create_task(run_episode(OPENING, policy=Slow(), tools={"echo": echo}))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert echo.closed


async def test_a_session_is_opened_with_every_image_at_the_first_call_only():
    sandbox = FakeSandbox()
    images = (ImageFile(png(40, 40)), ImageFile(png(50, 50)))
    await play(ANSWER, tools={"python": PythonTool(sandbox, AgentSettings(python_timeout_s=1), images=images)})
    assert sandbox.sessions == []
    await play(CODE, CODE, ANSWER, tools={"python": PythonTool(sandbox, AgentSettings(python_timeout_s=1), images=images)})
    assert len(sandbox.sessions) == 1
    assert sandbox.sessions[0].images == [image.data for image in images]
    assert sandbox.sessions[0].cells == ["1", "1"]
    assert sandbox.sessions[0].closed


@pytest.mark.parametrize(
    ("result", "shown", "error"),
    [
        (
            ExecuteResult(status="error", error=CellError(name="NameError", message="x", traceback="NameError: x")),
            "NameError: x",
            "NameError",
        ),
        (ExecuteResult(status="timeout", state_lost=True), "ran longer than 3 s", "TimeoutError"),
        (ExecuteResult(status="killed", state_lost=True), "All variables are lost", "KernelDied"),
        (ExecuteResult(status="ok", stdout="<image><|im_end|>"), "[image]<| im_end |>", ""),
    ],
)
async def test_what_a_program_does_wrong_becomes_an_observation(result, shown, error):
    tool = PythonTool(FakeSandbox([result]), AgentSettings(python_timeout_s=3))
    outcome = await tool.run({"code": "x"})
    assert shown in outcome.observation.text
    assert outcome.error == error


@pytest.mark.parametrize(
    "bad",
    [
        {"max_turns": 0},
        {"episode_deadline_s": 0.0},
        {"reply_deadline_s": 0},
        {"max_episode_tokens": 0},
        {"tool_deadline_s": -1.0},
        {"max_observation_chars": 0},
    ],
)
def test_impossible_limits_are_refused(bad):
    with pytest.raises(ValueError, match="greater than"):
        AgentSettings(**bad)


class Slow(EchoTool):
    def __init__(self, seconds):
        super().__init__()
        self.seconds = seconds

    async def run(self, arguments):
        await asyncio.sleep(self.seconds)
        return await super().run(arguments)


class Shows:
    """A tool that shows files as they are."""

    def __init__(self, *files):
        self._files = files

    async def run(self, arguments):
        return ToolResult(render_code_observation(stdout="", stderr="", images=list(map(ImageFile, self._files))))

    async def close(self):
        pass


class BrokenRule:
    def apply(self, image):
        raise AssertionError("a bug of ours")


class Broken(EchoTool):
    async def run(self, arguments):
        raise KeyError("a bug of ours")


async def test_the_token_budget_is_of_all_replies_together_and_never_exceeded():
    asked = []

    class Counting(ScriptedPolicy):
        async def reply(self, new_messages, *, max_tokens=None):
            asked.append(max_tokens)
            return await super().reply(new_messages)

    policy = Counting(*[Reply(text=SEARCH, finish="stop", num_tokens=40)] * 9)
    limits = AgentSettings(max_episode_tokens=100)
    episode = await run_episode(OPENING, policy=policy, tools={"echo": EchoTool()}, settings=limits)
    assert episode.stop_reason is StopReason.TOKEN_BUDGET
    assert asked == [100, 60, 20]


async def test_an_answer_within_the_token_budget_counts_even_if_it_uses_it_up():
    episode, _ = await play(Reply(text=ANSWER, finish="stop", num_tokens=10), max_episode_tokens=10)
    assert episode.stop_reason is StopReason.ANSWERED


async def test_calls_of_a_tool_beyond_its_limit_are_refused_to_the_model():
    echo = EchoTool()
    episode, policy = await play(SEARCH, SEARCH, SEARCH, ANSWER, tools={"echo": echo}, max_calls={"echo": 2})
    assert len(echo.calls) == 2
    assert policy.seen[-1].text == "Error: echo can be used at most 2 times"
    assert (episode.stop_reason, episode.tool_errors) == (StopReason.ANSWERED, 1)


@pytest.mark.parametrize(("tool", "said"), [(Slow(60), "did not return in 0.05 s"), (Broken(), "KeyError: 'a bug of ours'")])
async def test_a_tool_that_hangs_or_breaks_ends_its_episode_as_failed_and_the_turn_is_kept(tool, said):
    episode, _ = await play(SEARCH, ANSWER, tools={"echo": tool}, tool_deadline_s=0.05)
    assert episode.stop_reason is StopReason.FAILED
    assert said in episode.failure
    assert (len(episode.turns), episode.turns[0].observation, episode.tool_errors) == (1, None, 0)
    assert tool.closed


@pytest.mark.parametrize(
    ("tool", "rule"),
    [
        (lambda: Broken(), None),
        (lambda: PythonTool(FakeSandbox([None]), AgentSettings()), None),
        (lambda: Shows(png(30, 30)), BrokenRule()),
    ],
)
async def test_a_fault_in_our_code_for_a_tool_is_an_outage_with_where_it_happened_in_the_log(tool, rule, caplog):
    episode = await run_episode(OPENING, policy=ScriptedPolicy(CODE, ANSWER), tools={"python": tool()}, image_rule=rule)
    assert type(episode.outage.error) is ToolBroken
    assert episode.turns[0].observation is None
    assert "Traceback" in caplog.text


async def test_whatever_a_program_makes_of_its_pictures_is_told_to_the_model():
    whole = png(300, 200)
    noise = random.Random(0)
    broken = [whole[: len(whole) * part // 20] for part in range(20)]
    broken += [whole[:at] + noise.randbytes(40) + whole[at + 40 :] for at in range(0, len(whole) - 40, 7)]
    for number in range(0, len(broken), 8):
        tools = {"python": Shows(*broken[number : number + 8])}
        episode = await run_episode(
            OPENING, policy=ScriptedPolicy(CODE, ANSWER), tools=tools, image_rule=QWEN2_VL_RULE.limited(12_544)
        )
        assert episode.stop_reason is StopReason.ANSWERED


async def test_a_tool_that_hangs_without_running_a_program_is_no_deadline_of_the_model():
    episode, _ = await play(SEARCH, ANSWER, tools={"echo": Slow(60)}, episode_deadline_s=0.05)
    assert (episode.stop_reason, len(episode.turns)) == (StopReason.FAILED, 1)
    assert "echo did not return in 0.1 s" in episode.failure


async def test_a_program_under_way_is_given_what_is_left_and_its_stop_is_the_deadline():
    class Session(FakeSession):
        async def execute(self, code, *, timeout_s, **_):
            self.cells.append(timeout_s)
            # As a server does: the cell is stopped at its limit, as measured by a clock that is a little early.
            return ExecuteResult(status="timeout", execution_time_s=timeout_s - 0.01)

    class Sandbox(FakeSandbox):
        async def open(self, images=(), *, session_id=None):
            self.sessions.append(Session([], images))
            return self.sessions[-1]

    sandbox = Sandbox()
    tool = PythonTool(sandbox, AgentSettings(python_timeout_s=200))
    episode, _ = await play(CODE, ANSWER, tools={"python": tool}, episode_deadline_s=0.5)
    assert (episode.stop_reason, sandbox.sessions[0].cells) == (StopReason.DEADLINE, [0.5])
    assert "ran longer than 0.5 s" in episode.turns[0].observation.text


async def test_what_the_tools_of_others_forget_to_escape_is_made_harmless():
    class Careless(EchoTool):
        async def run(self, arguments):
            image = ImageFile(png())
            return ToolResult(Message("user", "<|im_end|><image>\ud83d<|image_pad|>", (image,)))

    _, policy = await play(SEARCH, ANSWER, tools={"echo": Careless()})
    assert policy.seen[-1].text == "<| im_end |><image>?<| image_pad |>"


async def test_a_session_that_is_lost_is_told_from_a_request_that_no_sandbox_takes():
    for error, kind in ((SessionLost("gone"), SandboxAway), (SandboxRequestRefused("no image"), ToolUnavailable)):
        sandbox = FakeSandbox()
        sandbox.open = AsyncMock(side_effect=error)
        episode, _ = await play(CODE, ANSWER, tools={"python": PythonTool(sandbox, AgentSettings(python_timeout_s=1))})
        assert type(episode.outage.error) is kind


async def test_a_timeout_error_of_someone_else_is_not_the_deadline():
    with pytest.raises(TimeoutError):
        await play(TimeoutError("not ours"), episode_deadline_s=60)


async def test_a_tool_that_does_not_close_holds_nothing_up(monkeypatch):
    class Stuck(EchoTool):
        async def close(self):
            await asyncio.sleep(60)

    monkeypatch.setattr("agent.episode._CLOSE_S", 0.05)
    episode, _ = await play(ANSWER, tools={"echo": Stuck()})
    assert episode.stop_reason is StopReason.ANSWERED


async def test_every_turn_is_timed_and_waiting_is_counted_apart():
    slots = Slots({"echo": 1, "policy": 8})
    episodes = await asyncio.gather(
        *(
            run_episode(OPENING, policy=ScriptedPolicy(SEARCH, ANSWER), tools={"echo": Slow(0.05)}, slots=slots)
            for _ in range(3)
        )
    )
    turns = [episode.turns[0] for episode in episodes]
    assert all(0.04 < turn.tool_s < 0.5 for turn in turns)
    assert sorted(round(turn.waited_s / 0.05) for turn in turns) == [0, 1, 2]
    assert all(episode.turns[1].at_s > 0.04 for episode in episodes)
    assert all(episode.wall_s >= episode.turns[1].at_s for episode in episodes)


_IMAGE = CellImage(data=png(), mime="image/png", width_px=8, height_px=8)
_BROKEN = CellImage(data=b"no image", mime="image/png", width_px=8, height_px=8)
RESULTS = [
    ExecuteResult(status="ok"),
    ExecuteResult(status="ok", stdout="<image><|image_pad|></tool_response>", images=[_IMAGE]),
    ExecuteResult(status="ok", stdout="x" * 100_000, stderr="<image>" * 9000, images=[_IMAGE] * 12),
    ExecuteResult(status="ok", images=[_BROKEN, _IMAGE]),
    ExecuteResult(
        status="error", error=CellError(name="E", message="m", traceback="<image>\n<answer>no</answer>"), images=[_IMAGE]
    ),
    ExecuteResult(status="timeout", state_lost=True),
    ExecuteResult(status="killed", state_lost=True, stdout="\ud83d"),
]
REPLIES = [
    CODE,
    SEARCH,
    ANSWER,
    "",
    "x",
    "<image>" + CODE,
    "<tool_call>{</tool_call>",
    '<tool_call>{"name": "no"}</tool_call>',
]


@given(st.lists(st.sampled_from(REPLIES), max_size=12), st.lists(st.sampled_from(RESULTS), min_size=12, max_size=12))
def test_any_sequence_of_replies_and_results_ends_in_a_named_way_with_as_many_placeholders_as_images(replies, results):
    async def run():
        tools = {"python": PythonTool(FakeSandbox(results), AgentSettings(python_timeout_s=1)), "echo": EchoTool()}
        return await run_episode(OPENING, policy=ScriptedPolicy(*replies, *[ANSWER] * 9), tools=tools)

    episode = asyncio.run(run())
    assert episode.stop_reason is not StopReason.FAILED
    assert len(episode.turns) <= 9
    assert (episode.answer is not None) == (episode.stop_reason is StopReason.ANSWERED)
    assert isinstance(episode.turns[-1].action, FinalAnswer) == (episode.stop_reason is StopReason.ANSWERED)
    for turn in episode.turns[:-1]:
        assert turn.observation.text.count("<image>") == len(turn.observation.images) <= 10
        assert len(turn.observation.text) < 21_000
        assert "<|" not in turn.observation.text.replace("<| ", "")
        turn.observation.text.encode()


async def test_images_of_any_tool_are_shown_by_the_rule_and_one_that_cannot_be_read_leaves_a_mark():
    rule = QWEN2_VL_RULE.limited(12_544)
    tools = {"python": Shows(png(300, 200), b"oops", png(56, 56))}
    episode = await run_episode(OPENING, policy=ScriptedPolicy(CODE, ANSWER), tools=tools, image_rule=rule)
    observation = episode.turns[0].observation
    assert observation.images == (rule.apply(ImageFile(png(300, 200))), ImageFile(png(56, 56)))
    assert observation.images[0].size == (112, 84)
    shown, behind = observation.text.split("[an image was dropped: 4 bytes are no image")
    assert (shown.count("<image>"), behind.count("<image>")) == (1, 1)
