"""`deepeyes doctor`: what is installed, reachable and missing, and what to do."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlparse

import psutil
from rich.console import Console
from rich.markup import escape

from code_sandbox.command_line import FAILED, print_json
from code_sandbox.redaction import checked_url, redacted, secrets_of

_PACKAGES = {
    "agent": ("httpx", "pillow", "pydantic", "pyyaml"),
    "sandbox": ("fastapi", "uvicorn", "redis", "jupyter_client", "ipykernel", "matplotlib", "numpy"),
    "search": ("tantivy", "trafilatura", "ddgs", "ImageHash", "onnxruntime"),
    "viewer": ("fastapi", "uvicorn", "pygments"),
    "judge": ("math-verify",),
    "cold start": ("llamafactory", "transformers", "torch"),
    "reinforcement learning": ("verl", "ray", "vllm", "TransferQueue"),
}


_COLOURS = {"ok": "green", "FAIL": "red", "miss": "yellow"}


class _Missing(Exception):
    """Something is not there; the message says what to do."""


def _packages(names: tuple[str, ...]) -> str:
    missing, found = [], []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        raise _Missing(f"not installed: {', '.join(missing)}; run `bash scripts/setup.sh`")
    return ", ".join(found)


def _machine() -> str:
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    text = (
        f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, free: {memory.available >> 30} GiB memory, "
        f"{disk.free >> 30} GiB disk"
    )
    if sys.version_info[:2] != (3, 11):
        raise _Missing(f"{text}; the locked environment is for Python 3.11")
    if memory.available < 10 << 30:
        raise _Missing(f"{text}; the quickstart needs about 10 GiB of memory")
    return text


def _redis() -> str:
    url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
    try:
        address = urlparse(checked_url(url, "a Redis"))
        with socket.create_connection((address.hostname or "127.0.0.1", address.port or 6379), 2.0) as connection:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except ValueError as error:
        raise _Missing(f"{error}; set REDIS_URL") from error
    except OSError as error:
        raise _Missing(f"{redacted(url)} does not answer ({error}); start `redis-server` or set REDIS_URL") from error
    return redacted(f"{url} answers {answer.decode(errors='replace').strip()}", *secrets_of(url))


def _sandbox() -> str:
    from code_sandbox.client import SandboxClient
    from code_sandbox.errors import SandboxError

    async def ask() -> str:
        async with SandboxClient(os.environ.get("CODE_SANDBOX_URL", "http://127.0.0.1:8000")) as client:
            states = await client.health()
        return "; ".join(
            f"{state.server_id}: {state.status}, {state.sessions}/{state.max_sessions} sessions, "
            f"isolation level {state.isolation.level} ({state.isolation.name})"
            for state in states
        )

    try:
        return asyncio.run(ask())
    except (SandboxError, ValueError) as error:
        raise _Missing(str(error)) from error


def _judge(model: str) -> str:
    from judge.client import Judge, JudgeMisconfigured, JudgeSettings
    from serving.urls import split_urls

    urls = split_urls(os.environ.get("LLM_AS_A_JUDGE_BASE"))
    if not urls:
        raise _Missing(
            "LLM_AS_A_JUDGE_BASE is not set: answers are decided by rules only; `bash judge/serve.sh` starts a judge"
        )

    async def ask() -> None:
        judge = Judge(JudgeSettings(base_urls=urls, model=model))
        try:
            await judge.ping()
        finally:
            await judge.aclose()

    try:
        asyncio.run(ask())
    except (ConnectionError, JudgeMisconfigured, ValueError) as error:
        raise _Missing(f"{error}; `deepeyes judge doctor` looks closer") from error
    return f"answers at {', '.join(map(redacted, urls))}; `deepeyes judge doctor` says whether it is fit"


def _accelerator() -> str:
    try:
        import torch
    except ImportError as error:
        raise _Missing("torch is not installed; run `bash scripts/setup.sh`") from error
    if not torch.cuda.is_available():
        return f"none (torch {torch.__version__}): recipes with `_cpu` run here"
    return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()} (torch {torch.__version__})"


def report(*, judge_model: str = "judge", as_json: bool = False) -> int:
    """Print the state of everything.

    Args:
        judge_model: The name by which the judge's servers know it.
        as_json: Print JSON, for programs.

    Returns:
        1 if a package is missing, else 0: servers that are not up are no fault of the installation.
    """
    console = Console()
    installed = True
    checks: list[tuple[str, Callable[[], str], bool]] = [("machine", _machine, False), ("accelerator", _accelerator, True)]
    checks += [(room, lambda names=names: _packages(names), True) for room, names in _PACKAGES.items()]  # type: ignore[misc]
    checks += [
        ("Redis", _redis, False),
        ("sandbox server", _sandbox, False),
        ("LLM judge", lambda: _judge(judge_model), False),
    ]
    told: list[dict[str, str]] = []
    for name, check, essential in checks:
        try:
            state, text = "ok", redacted(check())
        except _Missing as problem:
            installed = installed and not essential
            state, text = "FAIL" if essential else "miss", redacted(str(problem))
        told.append({"name": name, "state": state, "text": text})
        if not as_json:
            console.print(f"[{_COLOURS[state]}]{state:4}[/]  {name:24} {escape(text)}")
    if as_json:
        print_json(told)
    return 0 if installed else FAILED
