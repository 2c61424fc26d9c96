"""Two sandbox servers and their Redis, and somebody who kills and stops parts of them. See sandbox_chaos.py."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import psutil

from serving.processes import free_port, redis_server, sandbox_server

_SERVERS = 2
_LONGEST_STOP_S = 9.0
_WEIGHTS = (3, 3, 2, 2, 1, 1, 1)
_FELT_FOR_S = 20.0
"""How long after a blow an outage may still come of it: a session that nobody asked for meanwhile, a heartbeat."""
_SETTINGS = "memory_limit_bytes: 2147483648\nspare_kernels: 2\nrequire_level: 0\n"


class Pool:
    """Servers and a Redis that can be killed and come back at their addresses."""

    def __init__(self, logs: Path, backend: str) -> None:
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        self._config = logs / "sandbox.yaml"
        self._config.write_text(f"{_SETTINGS}backend: {backend}\n")
        self._redis_port = free_port()
        self._ports = [free_port() for _ in range(_SERVERS)]
        self._redis: contextlib.ExitStack | None = None
        self._servers: list[contextlib.ExitStack | None] = [None] * _SERVERS
        # A program that we start gets a signal when the thread ends that has started it.
        self.thread = ThreadPoolExecutor(1)

    @property
    def urls(self) -> list[str]:
        """Of the servers."""
        return [f"http://127.0.0.1:{port}" for port in self._ports]

    def __enter__(self) -> Pool:
        self.thread.submit(self._start_all).result()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.thread.submit(self._stop_all).result()
        self.thread.shutdown()

    def _start_all(self) -> None:
        self._start_redis()
        for number in range(_SERVERS):
            self._start_server(number)

    def _stop_all(self) -> None:
        for stack in (*self._servers, self._redis):
            if stack is not None:
                stack.close()

    def _start_redis(self) -> None:
        self._redis = contextlib.ExitStack()
        self._redis.enter_context(redis_server(self._logs, port=self._redis_port))

    def _start_server(self, number: int) -> None:
        stack = self._servers[number] = contextlib.ExitStack()
        redis_url, port = f"redis://127.0.0.1:{self._redis_port}/0", self._ports[number]
        arguments = ("--config", str(self._config))
        stack.enter_context(sandbox_server(self._logs / str(number), redis_url, arguments=arguments, port=port))

    def server(self, number: int) -> psutil.Process:
        """Raises: psutil.Error: It has ended."""
        return _child(lambda line: "code_sandbox.server" in line and str(self._ports[number]) in line)

    def zygote(self, number: int) -> psutil.Process:
        """Raises: psutil.Error: It has none now."""
        for child in self.server(number).children():
            if any("zygote_process" in part for part in child.cmdline()):
                return child
        raise psutil.NoSuchProcess(0)

    def kill_redis(self, away_s: float) -> None:
        """And start it again, empty."""
        # It writes its address behind its name.
        address = f"127.0.0.1:{self._redis_port}"
        _child(lambda line: address in " ".join(line[:2]) and line[0].partition(" ")[0].endswith("-server")).kill()
        time.sleep(away_s)
        assert self._redis is not None
        self._redis.close()
        self._start_redis()

    def kill_server(self, number: int, away_s: float) -> None:
        """And start it again."""
        self.server(number).kill()
        time.sleep(away_s)
        stack = self._servers[number]
        assert stack is not None
        stack.close()
        self._start_server(number)


def _child(is_wanted: Callable[[list[str]], bool]) -> psutil.Process:
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error, IndexError):
            if is_wanted(process.cmdline()):
                return process
    raise psutil.NoSuchProcess(0)


class Breaker:
    """Strikes at random times, always the same for the same seed.

    Args:
        pool: Struck.
        seed: Of the order and kind of blows.
        every_s: Between two, on average.
    """

    def __init__(self, pool: Pool, *, seed: int, every_s: float) -> None:
        self._pool = pool
        self._rng = random.Random(seed)
        self._every_s = every_s
        self._began_s = time.monotonic()
        self._last_s = 0.0
        self._striking = False
        self._stopped = asyncio.Event()
        self.done: Counter[str] = Counter()
        """Blows by their kind."""

    @property
    def age_s(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began_s

    @property
    def calm(self) -> bool:
        """Whether nothing is broken, and has not been for a while."""
        return not self._striking and time.monotonic() - self._last_s > _FELT_FOR_S

    def stop(self) -> None:
        """No blow any more."""
        self._stopped.set()

    async def run(self) -> None:
        """Strike until stopped; in the end everything is there again."""
        loop = asyncio.get_running_loop()
        self._last_s = time.monotonic()
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), self._rng.uniform(0.3, 1.7) * self._every_s)
                return
            name, blow = self._next()
            self._striking = True
            try:
                await loop.run_in_executor(self._pool.thread, blow)
                self.done[name] += 1
            except (psutil.Error, IndexError):
                # It had ended by itself, or by the blow before.
                pass
            finally:
                self._striking = False
                self._last_s = time.monotonic()

    def _next(self) -> tuple[str, Callable[[], None]]:
        rng, pool = self._rng, self._pool
        number, away_s, pick = rng.randrange(_SERVERS), rng.uniform(0, 2), rng.random()
        stopped_s = rng.uniform(0.3, rng.choice((1, 1, 3, _LONGEST_STOP_S)))
        blows: dict[str, Callable[[], None]] = {
            "zygote killed": lambda: pool.zygote(number).kill(),
            "session killed": lambda: random.Random(pick).choice(pool.zygote(number).children()).kill(),
            "server killed": lambda: pool.kill_server(number, away_s),
            "Redis killed": lambda: pool.kill_redis(away_s),
            "server stopped": lambda: _stop([pool.server(number)], stopped_s),
            "zygote stopped": lambda: _stop([pool.zygote(number)], stopped_s),
            "server and its sessions stopped": lambda: _stop(_tree(pool.server(number)), stopped_s),
        }
        name = rng.choices(list(blows), _WEIGHTS)[0]
        return name, blows[name]


def _tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _stop(processes: list[psutil.Process], seconds: float) -> None:
    for number, pause_s in ((signal.SIGSTOP, seconds), (signal.SIGCONT, 0.0)):
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        time.sleep(pause_s)
