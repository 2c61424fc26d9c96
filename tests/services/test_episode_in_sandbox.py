"""The loop and its tools on a real sandbox: nothing is left open, nothing is too large, a crop can be searched."""

import asyncio

import pytest

from agent.episode import StopReason, run_episode
from agent.errors import SandboxAway
from agent.images import ImageFile
from agent.messages import Message
from agent.search import ImageHit
from agent.settings import AgentSettings
from agent.testing import FakeSearch, ScriptedPolicy
from agent.tools import ToolContext, build_tools
from code_sandbox.client import SandboxClient
from serving.processes import sandbox_server
from tests.conftest import png
from tests.services.test_sandbox_outages import server_process

pytestmark = pytest.mark.services
IMAGE = ImageFile(png(64, 48))
OPENING = (Message("user", "<image>\nq", (IMAGE,)),)


def cell(code):
    return f"<code>\n```python\n{code}\n```\n</code>"


async def sessions(client):
    return sum(state.sessions for state in await client.health())


async def play(client, *replies, names=("python",), settings=None, image_search=None, **limits):
    settings = (settings or AgentSettings()).model_copy(update=limits)
    context = ToolContext(images=(IMAGE,), sandbox=client, image_search=image_search, settings=settings)
    policy = ScriptedPolicy(*replies)
    return await run_episode(OPENING, policy=policy, tools=build_tools(names, context), settings=settings), policy


@pytest.mark.parametrize("end", ["cancelled", "deadline", "answered", "tool deadline"])
async def test_however_an_episode_ends_its_session_is_closed(own_sandbox, end):
    # Of its own, because a neighbour's last session may still be closing: it would be counted as there before.
    async with SandboxClient(own_sandbox) as client:
        slow, limits = (
            cell("import time; time.sleep(30)"),
            {"deadline": {"episode_deadline_s": 0.8}, "tool deadline": {"tool_deadline_s": 0.8}},
        )
        replies = [cell("x = 1"), slow if end != "answered" else "<answer>a</answer>"]
        task = asyncio.create_task(play(client, *replies, **limits.get(end, {})))
        if end == "cancelled":
            while not any(state.running_cells for state in await client.health()):
                await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            episode, _ = await task
            assert episode.stop_reason.value == {"tool deadline": "failed"}.get(end, end)
        async with asyncio.timeout(10):
            while await sessions(client):
                await asyncio.sleep(0.05)


async def test_a_hundred_megabytes_of_output_with_tags_in_it_reach_the_model_cut_and_harmless(sandbox_url):
    async with SandboxClient(sandbox_url) as client:
        code = "print('<image></tool_response><|im_end|>' * 2_600_000)"
        episode, policy = await play(client, cell(code), "<answer>a</answer>", max_observation_chars=5000)
    assert episode.stop_reason is StopReason.ANSWERED
    text = policy.seen[-1].text
    assert len(text) < 5200
    assert "<image>" not in text
    assert "<|im_end|>" not in text


@pytest.mark.parametrize("most", [3, 10, 20])
async def test_an_observation_shows_as_many_images_and_characters_as_the_settings_say(sandbox_url, most):
    async with SandboxClient(sandbox_url) as client:
        code = "for _ in range(25): display(image_1)\nprint('y' * 45_000)"
        settings = AgentSettings(max_observation_images=most, max_observation_chars=50_000)
        context = ToolContext(images=(IMAGE,), sandbox=client, settings=settings)
        policy = ScriptedPolicy(cell(code), "<answer>a</answer>")
        await run_episode(OPENING, policy=policy, tools=build_tools(["python"], context), settings=settings)
    (observation,) = policy.seen[1:]
    assert len(observation.images) == most
    assert f"[{25 - most} more images were dropped]" in observation.text
    assert observation.text.count("y") == 45_000


async def test_a_crop_that_the_code_saved_can_be_searched(sandbox_url):
    call = '<tool_call>{"name": "image_search", "arguments": {"image": "%s"}}</tool_call>'
    search = FakeSearch(hits=[ImageHit("t", IMAGE)])
    async with SandboxClient(sandbox_url) as client:
        episode, policy = await play(
            client, cell("image_1.crop((0, 0, 20, 10)).save('crop.png')\nx = 5"), call % "crop.png", call % "gone.png",
            cell("print(x, [n for n in dir() if 'display' in n and not n.startswith('_')])"), "<answer>a</answer>",
            names=("python", "image_search"), settings=AgentSettings(any_image=True), image_search=search, max_calls={},
        )  # fmt: skip
    assert episode.stop_reason is StopReason.ANSWERED
    assert [image.size for image in search.images] == [(20, 10)]
    assert "found 1 results" in policy.seen[2].text
    assert policy.seen[3].text == "Error: no image 'gone.png' in the notebook (FileNotFoundError)"
    assert "5 []" in policy.seen[4].text


async def test_two_hundred_episodes_share_a_few_slots_and_all_answer(sandbox_url):
    from agent.scheduling import Slots, for_each

    slots, done = Slots({"python": 8}), []
    async with SandboxClient(sandbox_url) as client:
        before = await sessions(client)

        async def one(number):
            tools = build_tools(["python"], ToolContext(images=(IMAGE,), sandbox=client))
            policy = ScriptedPolicy(cell(f"print({number} * 2)"), "<answer>a</answer>")
            episode = await run_episode(OPENING, policy=policy, tools=tools, slots=slots)
            assert f"\n{number * 2}\n" in policy.seen[-1].text
            done.append(episode.stop_reason)

        assert await for_each(range(200), one, max_in_flight=32)
        assert done == [StopReason.ANSWERED] * 200
        assert await sessions(client) == before


@pytest.fixture
def own_sandbox(redis_url, tmp_path):
    with sandbox_server(tmp_path, redis_url, arguments=("--require-level", "0", "--spare-kernels", "1")) as url:
        yield url


@pytest.mark.parametrize("sessions_first", [True, False])
async def test_an_episode_that_is_cancelled_while_its_session_opens_leaves_no_session_and_no_process(own_sandbox, sessions_first):
    server = server_process(own_sandbox)
    async with SandboxClient(own_sandbox) as client, asyncio.timeout(60):
        for _ in range(5):
            before = await settled(server)
            task = asyncio.create_task(play(client, cell("x = 1"), "<answer>a</answer>"))
            while sessions_first and not await sessions(client):
                await asyncio.sleep(0)
            await asyncio.sleep(0 if sessions_first else 0.003)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while await sessions(client):
                await asyncio.sleep(0.05)
            assert await settled(server) == before


async def settled(server):
    """How many processes a server has, as soon as that stays the same for a second."""
    count, since = -1, 0
    while since < 10:
        found = len(server.children(recursive=True))
        count, since = found, since + 1 if found == count else 0
        await asyncio.sleep(0.1)
    return count


async def played_while_stopped(client, url, seconds, **limits):
    playing = asyncio.create_task(
        play(client, cell("import time; time.sleep(1); print(6 * 7)"), "<answer>a</answer>", **limits)
    )
    async with asyncio.timeout(30):
        while not any(state.running_cells for state in await client.health()):
            await asyncio.sleep(0.01)
    process = server_process(url)
    process.suspend()
    await asyncio.sleep(seconds)
    process.resume()
    return (await playing)[0]


async def test_a_server_that_stood_still_is_no_time_out_of_the_cell_nor_time_of_its_program(own_sandbox):
    async with SandboxClient(own_sandbox) as client:
        episode = await played_while_stopped(client, own_sandbox, 6, python_timeout_s=2.5, episode_deadline_s=5.5)
    assert episode.stop_reason is StopReason.ANSWERED
    assert "stdout:\n```\n42" in episode.turns[0].observation.text
    assert episode.program_s < 5


async def test_a_time_out_of_the_client_is_an_outage_and_not_told_as_the_cells(own_sandbox, monkeypatch):
    monkeypatch.setattr("code_sandbox.client._TRANSPORT_MARGIN_S", 5.0)
    async with SandboxClient(own_sandbox, wait_s=1.0) as client:
        episode = await played_while_stopped(client, own_sandbox, 11, python_timeout_s=2.5)
    assert (episode.stop_reason, type(episode.outage.error)) == (StopReason.FAILED, SandboxAway)
    assert "whether the cell ran is not known" in episode.failure
    assert not any("Timeout" in (turn.tool_error or "") for turn in episode.turns)
