"""Rollouts while sandboxes die, are full and come back: real servers, real Redis, the loop of training, a scripted model."""

import asyncio
import contextlib
import time

import pytest

from agent.episode import StopReason, run_episode
from agent.errors import SandboxAway
from agent.images import ImageFile
from agent.messages import Message
from agent.settings import AgentSettings
from agent.testing import ScriptedPolicy
from agent.tools import ToolContext, build_tools
from code_sandbox.client import SandboxClient
from reinforcement_learning.outages import SandboxGate, SandboxOutageSettings
from serving.processes import free_port, sandbox_server
from tests.conftest import png
from tests.services.test_sandbox_outages import kill

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
IMAGE = ImageFile(png(64, 48))
OPENING = (Message("user", "<image>\nq", (IMAGE,)),)


def cell(code):
    return f"<think>t</think><code>\n```python\n{code}\n```\n</code>"


SCRIPT = (
    cell("import time; x = [image_1.size]; time.sleep(0.3)"),
    cell("time.sleep(0.3); x.append(len(x))"),
    cell("time.sleep(0.3); print(x)"),
    "<think>t</think><answer>done</answer>",
)
DONE = "stdout:\n```\n[(64, 48), 1]\n```"


class Rollouts:
    """Episodes through a gate; remembers what was announced."""

    def __init__(self, client, **settings):
        self.said = []
        self.client = client
        settings = {"poll_s": 0.2} | settings
        self.gate = SandboxGate(client, SandboxOutageSettings(**settings), lambda text: self.said.append(text))

    async def attempt(self, *script):
        tools = build_tools(["python"], ToolContext(images=(IMAGE,), sandbox=self.client))
        return await run_episode(
            OPENING, policy=ScriptedPolicy(*script), tools=tools, settings=AgentSettings(max_turns=9)
        )

    async def one(self):
        return await self.gate.play(lambda: self.attempt(*SCRIPT))

    def start(self, count):
        return asyncio.gather(*(self.one() for _ in range(count)))


def server(directory, redis_url, *, port=None, arguments=()):
    directory.mkdir(exist_ok=True)
    return sandbox_server(
        directory, redis_url, port=port, arguments=("--require-level", "0", "--spare-kernels", "2", *arguments)
    )


def check_all_done(played):
    assert [one.episode.stop_reason for one in played] == [StopReason.ANSWERED] * len(played)
    # What the model saw is that of one session without a gap: nothing ran twice, nothing was forgotten.
    assert all(DONE in one.episode.turns[2].observation.text for one in played)


async def test_when_one_of_two_sandboxes_is_killed_nothing_is_lost_and_nobody_waits(redis_url, tmp_path):
    with server(tmp_path / "a", redis_url) as first, server(tmp_path / "b", redis_url) as second:
        async with SandboxClient([first, second], wait_s=15) as client:
            rollouts = Rollouts(client)
            playing = rollouts.start(24)
            await asyncio.sleep(1.0)
            kill(first)
            check_all_done(await playing)
    assert rollouts.said == []


async def test_when_both_sandboxes_are_killed_it_is_said_and_all_rollouts_go_on_when_one_is_back(redis_url, tmp_path):
    ports = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(server(tmp_path / str(port), redis_url, port=port)) for port in ports]
        async with SandboxClient(urls, wait_s=2) as client:
            rollouts = Rollouts(client)
            playing = rollouts.start(16)
            await asyncio.sleep(1.0)
            for url in urls:
                kill(url)
            await asyncio.sleep(4.0)
            assert not playing.done()
            assert [text for text in rollouts.said if "training waits for the sandbox: no server answers" in text]
            assert not [text for text in rollouts.said if "is back" in text]
            again = server(tmp_path / str(ports[0]), redis_url, port=ports[0])
            await asyncio.to_thread(stack.enter_context, again)
            async with asyncio.timeout(120):
                played = await playing
    check_all_done(played)
    assert any("the sandbox is back after" in text for text in rollouts.said)
    assert max(one.restarts for one in played) >= 1
    assert sum(one.waited_s for one in played) > 1


async def test_after_its_patience_a_rollout_is_lost_as_our_outage_and_it_is_said(redis_url, tmp_path):
    with server(tmp_path / "a", redis_url) as url:
        kill(url)
        async with SandboxClient(url, wait_s=0.5) as client:
            rollouts = Rollouts(client, patience_s=1.0)
            async with asyncio.timeout(60):
                played = await rollouts.start(4)
    assert [one.episode.stop_reason for one in played] == [StopReason.FAILED] * 4
    assert all(isinstance(one.episode.outage.error, SandboxAway) for one in played)
    assert any("rollouts that need it are left out" in text for text in rollouts.said)
    # It was everybody's outage, and no item's.
    assert not any(one.repeated_outage for one in played)


async def test_an_item_that_ends_the_sandbox_every_time_is_called_by_name_and_treated_as_the_recipe_says(redis_url, tmp_path):
    port, attempts = free_port(), 0
    with contextlib.ExitStack() as stack:

        def start():
            return stack.enter_context(server(tmp_path / "a", redis_url, port=port))

        url = start()

        async def kill_and_start_again():
            await asyncio.sleep(0.7)
            kill(url)
            await asyncio.to_thread(stack.close)
            await asyncio.to_thread(start)

        async with SandboxClient(url, wait_s=30) as client:
            rollouts = Rollouts(client, max_restarts=1)

            async def attempt():
                nonlocal attempts
                attempts += 1
                supervisor = asyncio.create_task(kill_and_start_again())
                episode = await rollouts.attempt(cell("import time; time.sleep(30)"), "<answer>a</answer>")
                await supervisor
                # Its neighbours are played while it is not.
                check_all_done([await rollouts.one()])
                return episode

            played = await rollouts.gate.play(attempt, item_id="tiles-7")
    assert (attempts, played.restarts, played.repeated_outage) == (2, 1, True)
    (said,) = (text for text in rollouts.said if "tiles-7" in text)
    assert "lost under its rollout 2 times while 2 others were finished" in said
    assert "by agent.sandbox_outage.repeated it is left out" in said
    assert played.reward_in_spite(SandboxOutageSettings()) is None
    reward = played.reward_in_spite(SandboxOutageSettings(repeated="scored_0"))
    assert (reward.score, reward.accuracy, reward.decided_by) == (0.0, 0.0, "rule:repeated_outage")


async def test_rollouts_that_find_every_sandbox_full_wait_for_room(redis_url, tmp_path):
    with server(tmp_path / "a", redis_url, arguments=("--max-sessions", "4")) as url:
        async with SandboxClient(url, wait_s=0.5) as client:
            rollouts = Rollouts(client, max_restarts=50)
            async with asyncio.timeout(120):
                check_all_done(await rollouts.start(16))
    assert any("no server has room (4 of 4 sessions" in text for text in rollouts.said)


async def test_a_rollout_is_played_again_a_bounded_number_of_times():
    class Fine:
        num_waiting = 0

        async def available(self):
            return [type("Room", (), {"sessions": 0, "max_sessions": 9, "status": "ok"})()]

    attempts = []

    async def attempt():
        attempts.append(time.monotonic())
        policy = ScriptedPolicy(SandboxAway("the session is lost"))
        return await run_episode(OPENING, policy=policy, tools={})

    gate = SandboxGate(Fine(), SandboxOutageSettings(max_restarts=3, poll_s=0.01))
    played = await gate.play(attempt)
    assert (len(attempts), played.restarts) == (4, 3)
    assert played.episode.stop_reason is StopReason.FAILED
