"""What the loop itself costs: time of a turn without model and tool, and memory of many episodes in flight.

    python -m benchmarks.loop_overhead

Time is that of `run_episode` around a model that answers at once and a tool that does nothing, against the same calls
without the loop. Memory is that of 2,000 episodes which all wait for their model, 16 to a question, each row with bytes
of its own as a data set gives them; a question has a photograph of 1 MP, and each episode was shown one crop of its
own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import time
from collections.abc import Sequence

import numpy as np
import psutil
from PIL import Image

from agent.episode import run_episode
from agent.images import ImageFile
from agent.messages import IMAGE_PLACEHOLDER, Message
from agent.policy import Reply
from agent.protocol import render_code_observation
from agent.settings import AgentSettings
from agent.testing import EchoTool, ScriptedPolicy
from agent.tools import ToolResult

_CODE = "<think>" + "I look closer at the upper left. " * 12 + "</think>\n<code>\n```python\nprint(1)\n```\n</code>"
_ANSWER = "<think>done</think>\n<answer>red</answer>"
_TURNS = 8
_GROUP = 16


def _photo(seed: int, width_px: int, height_px: int) -> bytes:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (height_px // 24, width_px // 24, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width_px, height_px), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


async def _turn_ms(episodes: int) -> tuple[float, float]:
    """(with the loop, without it), in ms a turn."""
    opening = (Message("system", "s"), Message("user", "q"))
    replies = [_CODE] * (_TURNS - 1) + [_ANSWER]
    started = time.perf_counter()
    for _ in range(episodes):
        await run_episode(
            opening,
            policy=ScriptedPolicy(*replies),
            tools={"python": EchoTool()},
            settings=AgentSettings(episode_deadline_s=60),
        )
    with_loop_s = time.perf_counter() - started
    started = time.perf_counter()
    for _ in range(episodes):
        policy, tool = ScriptedPolicy(*replies), EchoTool()
        for _ in range(_TURNS):
            await policy.reply(opening)
            await tool.run({"code": "print(1)"})
    without_s = time.perf_counter() - started
    return 1e3 * with_loop_s / episodes / _TURNS, 1e3 * without_s / episodes / _TURNS


class _Waiting:
    """Asks for a crop, and then waits."""

    def __init__(self, release: asyncio.Event, arrived: list[int]) -> None:
        self._release = release
        self._arrived = arrived
        self._turn = 0

    async def reply(self, new_messages: Sequence[Message], *, max_tokens: int | None = None) -> Reply:
        self._turn += 1
        if self._turn == 1:
            return Reply(text=_CODE, finish="stop")
        self._arrived[0] += 1
        await self._release.wait()
        return Reply(text=_ANSWER, finish="stop")


class _Crops(EchoTool):
    """Gives each episode a crop of its own."""

    def __init__(self, crop: bytes) -> None:
        super().__init__()
        self._crop = crop

    async def run(self, arguments: object) -> ToolResult:
        return ToolResult(render_code_observation(stdout="1", stderr="", images=[ImageFile(self._crop)]))


async def _memory_mib(episodes: int, *, shared: bool) -> float:
    """Growth of this process with all episodes in flight, in MiB."""
    questions = [_photo(seed, 1152, 896) for seed in range(episodes // _GROUP)]
    crop = _photo(10**6, 320, 240)
    gc.collect()
    before = psutil.Process().memory_info().rss
    release, arrived = asyncio.Event(), [0]
    tasks = []
    for number in range(episodes):
        data = bytes(bytearray(questions[number // _GROUP]))  # a copy, as each row of a batch has
        image = ImageFile.shared(data) if shared else ImageFile(data)
        opening = (Message("system", "s"), Message("user", f"{IMAGE_PLACEHOLDER}\nq", (image,)))
        own = crop + number.to_bytes(4, "big")  # bytes behind the end of a JPEG change its hash and not its pixels
        tasks.append(
            asyncio.create_task(run_episode(opening, policy=_Waiting(release, arrived), tools={"python": _Crops(own)}))
        )
        del data, image, opening
    while arrived[0] < episodes:
        await asyncio.sleep(0.01)
    gc.collect()
    grown: float = psutil.Process().memory_info().rss - before
    release.set()
    await asyncio.gather(*tasks)
    return grown / 2**20


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=2000)
    options = parser.parse_args()
    with_loop_ms, without_ms = asyncio.run(_turn_ms(options.episodes // 4))
    print(f"a turn with the loop {with_loop_ms:.3f} ms, without it {without_ms:.3f} ms")
    for shared in (True, False):
        grown = asyncio.run(_memory_mib(options.episodes, shared=shared))
        how = "shared by hash" if shared else "one copy a row  "
        print(f"{options.episodes:,} episodes in flight, images {how}: {grown:,.0f} MiB")


if __name__ == "__main__":
    main()
