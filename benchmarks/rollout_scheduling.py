"""Wall time of 256 rollouts: ours, each going its own way, against lock-step turns with two tool workers.

    python -m benchmarks.rollout_scheduling [--episodes 256]

The model is simulated: every token takes the same time however many episodes are asked for at once, as in a server that
is not full. The sandbox is real, one server on this machine. A call sleeps for a time drawn log-normally and crops the
image. Both sides do the very same work in the same sessions.

Lock-step, after DeepEyesV2 0373e6e (verl/workers/agent/parallel_env.py, `agent_rollout_loop`; the published 7B script sets
`concurrent_workers=2`): all sessions are opened one after another; then in each turn all active episodes generate
together, which takes as long as the longest reply; then all calls run on two workers; the next turn begins when the
last call is done. Its random pause of 1 to 10 s before searches is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.episode import StopReason, run_episode
from agent.images import ImageFile
from agent.messages import IMAGE_PLACEHOLDER, Message
from agent.policy import Reply
from agent.scheduling import Slots
from agent.settings import AgentSettings
from agent.tools.python import PythonTool
from benchmarks.sandbox_sessions import photo
from code_sandbox.client import SandboxClient
from serving.processes import marked, redis_server, sandbox_server

_TOKEN_S = 0.01
"""100 tokens a second for each request: a 7B model on one GPU that is not full."""
_WORKERS = 2
_SESSIONS_AT_ONCE = 128
_LATENCIES = ((0.02, 0.0), (0.1, 0.0), (0.1, 1.0), (0.3, 0.0), (0.3, 1.0))
"""(median in s, sigma of its logarithm): without spread to heavy-tailed."""


@dataclass(frozen=True)
class EpisodePlan:
    """What one episode does."""

    replies: tuple[str, ...]
    tokens: tuple[int, ...]


def make_plans(count: int, median_s: float, sigma: float) -> list[EpisodePlan]:
    """The same for the same arguments."""
    rng = random.Random(7)
    plans = []
    for _ in range(count):
        turns = rng.randint(1, 8)
        waits = [min(median_s * math.exp(rng.gauss(0, sigma)), 20 * median_s) for _ in range(turns - 1)]
        code = "<code>\n```python\nimport time\ntime.sleep({:.4f})\nprint(image_1.crop((0, 0, 64, 64)).size)\n```\n</code>"
        replies = (*(code.format(wait) for wait in waits), "<answer>a</answer>")
        plans.append(EpisodePlan(replies, tuple(rng.randint(40, 400) for _ in range(turns))))
    return plans


class SimulatedModel:
    """Takes a fixed time a token."""

    def __init__(self, plan: EpisodePlan) -> None:
        self._turns = iter(zip(plan.replies, plan.tokens, strict=True))

    async def reply(self, new_messages: Sequence[Message], *, max_tokens: int | None = None) -> Reply:
        text, tokens = next(self._turns)
        await asyncio.sleep(tokens * _TOKEN_S)
        return Reply(text=text, finish="stop", num_tokens=tokens)


async def ours(plans: list[EpisodePlan], sandbox: SandboxClient, image: ImageFile) -> float:
    """Seconds for all."""
    slots = Slots({"python": _SESSIONS_AT_ONCE})
    opening = (Message("user", f"{IMAGE_PLACEHOLDER}\nq", (image,)),)

    async def one(plan: EpisodePlan) -> None:
        tools = {"python": PythonTool(sandbox, AgentSettings(python_timeout_s=60), images=(image,))}
        episode = await run_episode(opening, policy=SimulatedModel(plan), tools=tools, slots=slots)
        assert episode.stop_reason is StopReason.ANSWERED, episode.failure
        assert episode.tool_errors == 0

    started = time.perf_counter()
    await asyncio.gather(*(one(plan) for plan in plans))
    return time.perf_counter() - started


async def lock_step(plans: list[EpisodePlan], sandbox: SandboxClient, image: ImageFile) -> float:
    """Seconds for all."""
    started = time.perf_counter()
    sessions = [await sandbox.open([image.data]) for _ in plans]
    workers = asyncio.Semaphore(_WORKERS)

    async def call(number: int, turn: int) -> None:
        code = plans[number].replies[turn].split("```python\n")[1].split("\n```")[0]
        async with workers:
            result = await sessions[number].execute(code, timeout_s=60)
        assert result.status == "ok", result

    for turn in range(max(len(plan.replies) for plan in plans)):
        active = [number for number, plan in enumerate(plans) if turn < len(plan.replies)]
        await asyncio.sleep(max(plans[number].tokens[turn] for number in active) * _TOKEN_S)
        await asyncio.gather(*(call(number, turn) for number in active if turn + 1 < len(plans[number].replies)))
    took = time.perf_counter() - started
    await asyncio.gather(*(session.close() for session in sessions))
    return took


async def compare(url: str, episodes: int) -> None:
    """Print the table."""
    image = ImageFile(photo(1152, 896))
    print("| median call | spread (sigma) | lock-step, 2 workers | ours | ratio |\n| --- | --- | --- | --- | --- |")
    async with SandboxClient(url, max_in_flight=_SESSIONS_AT_ONCE) as sandbox:
        for median_s, sigma in _LATENCIES:
            plans = make_plans(episodes, median_s, sigma)
            ours_s = await ours(plans, sandbox, image)
            theirs_s = await lock_step(plans, sandbox, image)
            print(
                f"| {median_s * 1000:.0f} ms | {sigma:g} | {theirs_s:.1f} s | {ours_s:.1f} s | {theirs_s / ours_s:.1f}x |",
                flush=True,
            )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, marked(), redis_server(Path(folder)) as redis_url:
        # A sleeping cell stands for one that computes on a core of its own: the cores of a small machine are no bound.
        config = Path(folder) / "sandbox.yaml"
        config.write_text(f"max_running_cells: {_SESSIONS_AT_ONCE}\nmax_sessions: {2 * options.episodes}\n")
        arguments = ("--require-level", "0", "--config", str(config))
        with sandbox_server(Path(folder), redis_url, arguments=arguments) as url:
            asyncio.run(compare(url, options.episodes))


if __name__ == "__main__":
    main()
