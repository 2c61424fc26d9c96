"""How long after a question its first token is shown: on the page of `deepeyes chat --web`, and in a terminal.

    python -m benchmarks.chat_latency [--rounds 30]

Both are the real commands, asked turn by turn in the same minute, against a simulated model that streams. The terminal is a
pseudo-terminal, into which each question is typed; the page's requests are sent as the page sends them: a question, and the
stream of events. What a browser takes to draw a line of text, a frame or two, is not part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from statistics import median

import httpx

from evaluation.smoke.scripted_model import request_server

_FIRST_S = 0.05
"""What the simulated model takes for each piece."""
_REPLY = "<think>Short.</think><answer>yes</answer>"
_MARK, _READY = b"<thi", b"next question"
_WITHIN_S = 60.0
_TARGET_MS = 50.0


class _Terminal:
    """`deepeyes chat` as somebody types into it."""

    def __init__(self, command: list[str]) -> None:
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._until(_READY)

    def ask(self, text: str) -> float:
        """Seconds to the first token."""
        began = time.perf_counter()
        os.write(self._ours, text.encode() + b"\n")
        self._until(_MARK)
        took_s = time.perf_counter() - began
        self._until(_READY)
        return took_s

    def close(self) -> None:
        """An empty question ends it."""
        os.write(self._ours, b"\n")
        self._process.wait(_WITHIN_S)
        os.close(self._ours)

    def _until(self, mark: bytes) -> None:
        seen, until = b"", time.monotonic() + _WITHIN_S
        while mark not in seen:
            if time.monotonic() > until:
                raise TimeoutError(f"{mark!r} was not printed within {_WITHIN_S:g} s; there was {seen[-500:]!r}")
            seen += os.read(self._ours, 65_536)


class _Page:
    """The requests of a page with one conversation."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=_WITHIN_S)
        self._rows: Queue[tuple[float, str]] = Queue()

    def begin(self) -> float:
        """Seconds to the first token of a new conversation: the page opens its stream when it is told its name."""
        began = time.perf_counter()
        self.name = str(self._http.post("/api/questions", json={"text": "first"}).json()["conversation"])
        threading.Thread(target=self._watch, daemon=True).start()
        return self._first(began)

    def ask(self, text: str) -> float:
        """Seconds to the first token of a follow-up."""
        began = time.perf_counter()
        self._http.post("/api/questions", json={"text": text, "conversation": self.name}).raise_for_status()
        return self._first(began)

    def _first(self, began: float) -> float:
        first_s = 0.0
        while True:
            at, kind = self._rows.get(timeout=_WITHIN_S)
            if kind == "text" and not first_s:
                first_s = at - began
            if kind == "idle":
                return first_s

    def _watch(self) -> None:
        with self._http.stream("GET", f"/api/conversations/{self.name}/events") as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    self._rows.put((time.perf_counter(), json.loads(line[6:])["kind"]))


@contextmanager
def _served(command: list[str]) -> Iterator[str]:
    with subprocess.Popen([*command, "--web", "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[0]
        finally:
            process.terminate()


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds to the first token, by who shows it."""
    took: dict[str, list[float]] = {"terminal": [], "page": [], "page, new conversation": []}
    with tempfile.TemporaryDirectory() as folder, request_server(lambda _: _REPLY, pause_s=_FIRST_S) as model:
        command = [sys.executable, "-m", "deepeyes.cli", "chat", "--base-url", model, "--tools", ""]
        with _served([*command, "--out", str(Path(folder) / "page")]) as url:
            terminal = _Terminal([*command, "--out", str(Path(folder) / "terminal"), "first"])
            page = _Page(url)
            page.begin()
            for number in range(rounds):
                took["terminal"].append(terminal.ask(f"question {number}"))
                took["page"].append(page.ask(f"question {number}"))
                took["page, new conversation"].append(_Page(url).begin())
            terminal.close()
    return took


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="First token on the page and in a terminal.")
    parser.add_argument("--rounds", type=int, default=30)
    took = measure(parser.parse_args().rounds)
    print("| | p50 ms | p95 ms | worst ms |\n| --- | --- | --- | --- |")
    for name, times_s in took.items():
        ordered = sorted(1000 * one for one in times_s)
        print(f"| {name} | {median(ordered):.1f} | {ordered[int(0.95 * (len(ordered) - 1))]:.1f} | {ordered[-1]:.1f} |")
    later_ms = 1000 * (median(took["page"]) - median(took["terminal"]))
    print(f"\nThe model's first piece takes {1000 * _FIRST_S:g} ms. The page: {later_ms:+.1f} ms; allowed: +{_TARGET_MS:g}.")
    sys.exit(int(later_ms > _TARGET_MS))


if __name__ == "__main__":
    main()
