"""Tools of MCP servers, with the official library's own server in a process of its own, over both transports."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from agent.episode import StopReason, run_episode
from agent.errors import ToolError, ToolUnavailable
from agent.messages import Message
from agent.prompts import load_prompt
from agent.settings import AgentSettings
from agent.setup import Kept, open_setup
from agent.testing import ScriptedPolicy
from agent.tools import EpisodeState, ToolContext, build_tools, describe_tools
from tests.conftest import ROOT

pytestmark = pytest.mark.services
CANARY = "canary7f3a9b2c5d8e1f60"
PROGRAM = [sys.executable, "-W", "ignore", "-m", "tests.mcp_server"]
START_S = 60


STDIO = {"command": [*PROGRAM, "--banner"], "env": ["TRIAL_LOGIN"], "max_result_bytes": 200_000}


def settings(server=None, **given):
    """With servers that differ in nothing, for each is asked once for its tools."""
    return AgentSettings(tools=("mcp",), prompt="tools", mcp={"trial": STDIO | (server or {})}, **given)


@pytest.fixture(autouse=True, scope="module")
def from_the_repository():
    """Programs are started where this process is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("TRIAL_LOGIN", f"Bearer {CANARY}")
        yield


@pytest.fixture(scope="module")
def address():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    server = subprocess.Popen(
        [*PROGRAM, "--http", str(port)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        server.kill()
        server.wait()


def over_http(address, *, tools=("mcp",), search=None, **server):
    return AgentSettings(tools=tools, prompt="tools", search=search, mcp={"trial": {"url": address} | server})


def tools_of(chosen):
    return build_tools(chosen.tools, ToolContext(settings=chosen))


async def closed(tools):
    for tool in tools.values():
        await tool.close()


def call(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


async def texts_of(chosen, *replies, setup=None, kept=None):
    """What an episode shows the model."""
    opened = setup or open_setup(chosen)
    episode = await opened.play([Message("user", "q")], ScriptedPolicy(*replies, "<answer>a</answer>"), images=(), kept=kept)
    if setup is None:
        await opened.aclose()
    return episode, [turn.observation.text for turn in episode.turns if turn.observation is not None]


def test_the_prompt_lists_the_tools_in_the_servers_words_with_their_schemas(address):
    chosen = over_http(address, offer=["add", "draw"], prefix="t_")
    listed = describe_tools(chosen.tools, chosen)
    assert listed.startswith("- t_add: Adds two whole numbers.\n  Its arguments, as a JSON schema: {")
    assert '"b": {"title": "B", "type": "integer"}' in listed
    assert "\n- t_draw: " in listed
    assert listed in load_prompt("tools", settings=chosen).system


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ({"url": None, "offer": ["fly"]}, "mcp.trial.offer names 'fly', which the server does not have; there are: add, "),
        (
            {"url": None, "max_listed_chars": 100},
            "take .* characters of the prompt, allowed are 100: name those that are needed in mcp.trial.offer",
        ),
        (
            {"command": ["no-such-program"]},
            "No such file or directory: 'no-such-program'; start it, or leave it out of `mcp`",
        ),
        ({"command": [sys.executable, "-c", "import sys; sys.exit('no licence')"]}, "it said: …no licence"),
        ({"command": ["cat"]}, "did not open a session"),
        ({"env": ["NOT_SET_ANYWHERE"]}, "mcp.trial.env names the variable NOT_SET_ANYWHERE, which is not set"),
    ],
)
def test_a_server_that_cannot_be_had_is_missed_before_the_first_episode(server, told, address):
    if "url" in server:
        server = server | {"url": address, "command": (), "env": ()}
    with pytest.raises(ValueError, match=told):
        open_setup(settings(server))


def test_two_tools_of_one_name_are_refused_and_a_prefix_helps(address):
    two = {name: {"url": address, "offer": ["add"]} for name in ("one", "two")}
    with pytest.raises(ValueError, match="two MCP servers have a tool 'add'; set mcp.two.prefix"):
        open_setup(AgentSettings(tools=("mcp",), prompt="tools", mcp=two))
    two["two"]["prefix"] = "two_"
    chosen = AgentSettings(tools=("mcp",), prompt="tools", mcp=two)
    assert set(tools_of(chosen)) == {"add", "two_add"}
    ours = over_http(address, offer=["search"], tools=("search", "mcp"), search={"provider": "duckduckgo"})
    with pytest.raises(ValueError, match="mcp has a tool 'search', and so has another"):
        open_setup(ours)


async def test_an_episode_reads_texts_and_images_and_learns_from_its_mistakes():
    episode, texts = await texts_of(
        settings(max_observation_images=2, max_calls={"add": 1}, max_turns=12),
        call("add", a="x"), call("add", a=1, b=2), call("draw", count=3), call("remember", text="one"), call("large", size=5_000_000),
        call("remember", text="two"), call("fail", why="so"), call("broken_image"), call("add", a=1, b=1),
    )  # fmt: skip
    assert episode.stop_reason is StopReason.ANSWERED, episode.failure
    wrong, added, drawn, _, large, both, failed, broken, again = texts
    assert added == "<tool_response>\n3\n</tool_response>"
    assert wrong == "Error: Invalid tool call parameters: 'b' is a required property"
    assert "here [image] <| im_end |> < /tool_response >\n<image>\n<image>\n[an image was left out]" in drawn
    assert len(episode.turns[2].observation.images) == 2
    assert large == "Error: the result of large has more than 200,000 bytes; ask for less"
    assert "one two" in both, "what was too large took nothing of the session with it"
    assert "Error executing tool fail" in failed
    assert episode.turns[6].tool_error
    assert "[an image was dropped: " in broken
    assert again == "Error: add can be used only once"


async def test_episodes_have_sessions_of_their_own_and_a_conversation_keeps_one():
    chosen = settings()
    setup = open_setup(chosen)
    kept = Kept(sandbox=None, state=EpisodeState(keeps_sessions=True))
    said = []
    for state, text in ((None, "a"), (None, "b"), (kept, "c"), (kept, "d")):
        episode, texts = await texts_of(chosen, call("remember", text=text), setup=setup, kept=state)
        assert not episode.failed, episode.failure
        said += texts
    for session in kept.state.sessions.values():
        await session.aclose()
    assert [text.split("\n")[1] for text in said] == ["a", "b", "c", "c d"]


async def test_a_server_gets_the_variables_that_are_named_and_its_word_for_them_is_hidden():
    tools = tools_of(settings())
    os.environ["NOT_GIVEN"] = "not given"
    try:
        told = (await tools["secret"].run({})).observation.text
    finally:
        del os.environ["NOT_GIVEN"]
        await closed(tools)
    assert f"*** {os.environ['HOME']} None" in told
    assert CANARY not in told


async def test_a_server_that_dies_or_loses_a_tool_is_our_outage_with_its_last_words():
    chosen = settings()
    episode, _ = await texts_of(chosen, call("die"))
    assert episode.failed
    assert "the MCP server 'trial' did not answer a call of die" in episode.failure
    assert "I am going down" in episode.failure
    episode, _ = await texts_of(chosen, call("forget", tool="add"), call("add", a=1, b=2))
    assert "no longer has 'add', which the prompt still lists as it was" in episode.failure


@pytest.mark.parametrize("how", ["freeze", "flood"])
async def test_a_deaf_program_is_ended_with_its_episode(how):
    tools = tools_of(settings())
    number = int((await tools["process"].run({})).observation.text.split("\n")[1])
    started = time.monotonic()
    with pytest.raises((TimeoutError, ToolError)):
        await asyncio.wait_for(tools[how].run({}), 1)
    await closed(tools)
    assert time.monotonic() - started < 25
    with pytest.raises(ProcessLookupError):
        os.kill(number, signal.SIGCONT)


async def test_over_http_the_same_holds(address):
    login = {"headers": [{"name": "Authorization", "variable": "TRIAL_LOGIN"}]}
    chosen = over_http(address, max_result_bytes=200_000, **login)
    episode, texts = await texts_of(
        chosen, call("add", a=1, b=2), call("draw"), call("large", size=5_000_000), call("header"), call("add", a=2, b=2)
    )
    assert not episode.failed, episode.failure
    assert [text.split("\n")[1] for text in (texts[0], texts[4])] == ["3", "4"]
    assert len(episode.turns[1].observation.images) == 1
    assert "more than 200,000 bytes" in texts[2]
    assert texts[3] == "<tool_response>\n***\n</tool_response>", "the server got the header, and we do not repeat it"


async def test_a_call_that_takes_too_long_and_a_server_that_goes_away_are_our_outages(address):
    tools = tools_of(over_http(address))
    slow = tools_of(over_http(address, call_timeout_s=1.5))
    with pytest.raises(ToolUnavailable, match=r"did not answer a call of hang in 1.5 s \(mcp.trial.call_timeout_s\)"):
        await slow["hang"].run({})
    with pytest.raises(ToolUnavailable, match="did not answer a call of die"):
        await tools["die"].run({})
    with pytest.raises(ToolUnavailable, match="did not open a session"):
        await slow["add"].run({"a": 1, "b": 2})
    await closed(tools)
    await closed(slow)


async def test_a_tool_of_a_server_works_in_the_loop_without_settings_around_it():
    chosen = settings()
    episode = await run_episode(
        [Message("user", "q")],
        policy=ScriptedPolicy(call("nothing"), "<answer>a</answer>"),
        tools=tools_of(chosen),
        settings=chosen,
    )
    assert "is not one of add, broken_image, die" in episode.turns[0].observation.text
