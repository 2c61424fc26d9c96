"""`deepeyes view` over 100,000 episodes: the first page with and without an index, full-text questions, groups and curves.

    python -m benchmarks.viewer_runs --episodes 100000

Episodes have two or three turns of 200 words drawn by Zipf's law, every tenth some Chinese, in groups of 16. The times are
those of the real server's answers, as the page asks for them. A question is a common word, a rare one, a phrase, or Chinese.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path

import httpx

from agent.episode import Episode, StopReason, Turn
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer, ToolCall
from agent.records import Rollout, RolloutFacts, to_line

_VOCABULARY = 50_000
_CHINESE = "请仔细观察图片中的红色方块并说明它在什么位置旁边有几个蓝色圆形然后给出最终答案"
_GROUP = 16


class _Words:
    """Words by Zipf's law, the same each time."""

    def __init__(self) -> None:
        letters = "etaoinshrdlucmfwypvbgkjq"
        self.words = ["".join(letters[(n // 24**k) % 24] for k in range(4)) + letters[n % 7] for n in range(_VOCABULARY)]
        self._cumulated = list(accumulate(1 / n for n in range(1, _VOCABULARY + 1)))
        self._random = random.Random(0)

    def draw(self, count: int) -> str:
        return " ".join(self._random.choices(self.words, cum_weights=self._cumulated, k=count))

    def chinese(self) -> str:
        start = self._random.randrange(len(_CHINESE) - 12)
        return _CHINESE[start : start + 12]


def _episode(words: _Words, number: int) -> Rollout:
    turns = []
    for turn in range(1 + number % 2):
        code = f"print({words.draw(20)!r})"
        text = f"<think>{words.draw(160)}</think><code>\n```python\n{code}\n```\n</code>"
        reply = Reply(text=text, finish="stop", num_tokens=200, token_ids=tuple(range(200)), logprobs=(-0.5,) * 200)
        error = "NameError" if number % 7 == turn else ""
        shown = Message("user", words.draw(40))
        turns.append(Turn(reply=reply, action=ToolCall("python", {"code": code}), observation=shown, tool_error=error))
    answer = words.draw(2)
    reply = Reply(text=f"<answer>{answer}</answer>", finish="stop", num_tokens=5)
    turns.append(Turn(reply=reply, action=FinalAnswer(answer)))
    question = words.draw(40) + (words.chinese() if number % 10 == 0 else "")
    episode = Episode(opening=(Message("user", question),), turns=turns, end=StopReason.ANSWERED, answer=answer)
    group, right = number // _GROUP, number * 7919 % 11 < 6
    facts = RolloutFacts(
        item_id=f"item-{group % 4096}", source=("perception", "search", "reason")[group % 3], sample=number % _GROUP,
        step=number // 512, group=f"g{group}", score=float(right), correct=right, reward=0.8 * right + 0.2, format=1.0,
    )  # fmt: skip
    return Rollout(episode, facts)


def _make(folder: Path, count: int) -> _Words:
    words = _Words()
    with (folder / "episodes.jsonl").open("wb") as file:
        for number in range(count):
            file.write(to_line(_episode(words, number)))
    return words


@contextmanager
def _server(folder: Path) -> Iterator[tuple[httpx.Client, float]]:
    """A client of `deepeyes view`, and the seconds until it printed its link."""
    began = time.monotonic()
    command = [sys.executable, "-m", "deepeyes.cli", "view", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().split()[0]
            with httpx.Client(base_url=url, timeout=120) as client:
                yield client, time.monotonic() - began
        finally:
            process.terminate()


def _seconds(client: httpx.Client, *paths: str) -> float:
    began = time.monotonic()
    for path in paths:
        client.get(path).raise_for_status()
    return time.monotonic() - began


def _first_page(client: httpx.Client, key: str) -> float:
    return _seconds(client, "/", "/page.js", "/page.css", "/api/runs", f"/api/runs/{key}/episodes?limit=100")


def _until(client: httpx.Client, key: str, name: str, count: int) -> float:
    """Seconds until the state says `count`, as the page asks for it."""
    began = time.monotonic()
    while client.get(f"/api/runs/{key}/state").json()[name] < count:
        time.sleep(0.05)
    return time.monotonic() - began


def _tell(name: str, times: list[float]) -> None:
    print(f"| {name}: median, longest | {statistics.median(times):.2f}, {max(times):.2f} s |")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5, help="of each question")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        folder.mkdir()
        words = _make(folder, options.episodes)
        size = (folder / "episodes.jsonl").stat().st_size
        print(f"{options.episodes:,} episodes, {size / 2**20:,.0f} MiB")
        with _server(folder) as (client, started_s):
            key = client.get("/api/runs").json()[0]["key"]
            print(f"| without an index: link | {started_s:.2f} s |\n| first page | {_first_page(client, key):.2f} s |")
            print(f"| all episodes listed after | {_until(client, key, 'episodes', options.episodes):.1f} s |")
            _seconds(client, f"/api/runs/{key}/search?find=x")
            pages = [_first_page(client, key) for _ in range(20)]
            _tell("first page while words are read", pages)
            print(f"| all words read after | {_until(client, key, 'words', options.episodes):.1f} s |")
        for path in sorted(folder.glob("*.sqlite")):
            print(f"| {path.name} | {path.stat().st_size / 2**20:,.0f} MiB |")
        with _server(folder) as (client, started_s):
            print(f"| with an index: link | {started_s:.2f} s |\n| first page | {_first_page(client, key):.2f} s |")
            phrase = f'"{words.words[0]} {words.words[1]}"'
            questions = {
                "the commonest word": words.words[0], "a rare word": words.words[-7], "a phrase of common words": phrase,
                "three words": " ".join(words.words[5:8]), "Chinese": "红色方块", "two Chinese words": "蓝色 位置",
            }  # fmt: skip
            for name, question in questions.items():
                found = client.get(f"/api/runs/{key}/search", params={"find": question}).json()["total"]
                question_path = str(httpx.URL(f"/api/runs/{key}/search", params={"find": question}))
                times = [_seconds(client, question_path) for _ in range(options.rounds)]
                _tell(f"{name} ({found:,} episodes)", times)
            for name in ("groups", "curves?split=source", "curves?split=tool", "failures"):
                times = [_seconds(client, f"/api/runs/{key}/{name}") for _ in range(options.rounds)]
                _tell(name, times)


if __name__ == "__main__":
    main()
