"""A vLLM server for a checkpoint folder, for as long as an evaluation lasts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

_CPU_ENVIRONMENT = {
    "TORCH_COMPILE_DISABLE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
_CPU_ARGUMENTS = [
    "--dtype", "float32", "--enforce-eager", "--distributed-executor-backend", "uni", "--max-num-seqs", "64",
    "--max-model-len", "512",
]  # fmt: skip


class ServerFailed(RuntimeError):
    """vLLM ended or did not become healthy."""


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve_checkpoint(
    checkpoint: Path,
    *,
    log: Path,
    cpu: bool,
    served_name: str = "policy",
    arguments: tuple[str, ...] = (),
    start_timeout_s: float = 600.0,
) -> Iterator[str]:
    """Start vLLM, wait until it is healthy, stop it at the end.

    Args:
        checkpoint: A Hugging Face model folder.
        log: vLLM's output goes here.
        cpu: Use the settings for a CPU.
        served_name: `--served-model-name`.
        arguments: More of vLLM's own.
        start_timeout_s: For loading the model.

    Yields:
        The base URL, with `/v1`.

    Raises:
        ServerFailed: vLLM ended or was not healthy in time; the message holds the end of its log.
    """
    if not (checkpoint / "config.json").is_file():
        raise ServerFailed(f"{checkpoint} is no model folder: it has no config.json")
    port = free_port()
    command = [
        sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(checkpoint), "--host", "127.0.0.1",
        "--port", str(port), "--served-model-name", served_name, "--limit-mm-per-prompt", '{"image": 16, "video": 0}',
        *(_CPU_ARGUMENTS if cpu else []), *arguments,
    ]  # fmt: skip
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | (_CPU_ENVIRONMENT if cpu else {}),
            # A group of its own: vLLM starts helpers, and all of them must go.
            start_new_session=True,
        )
    try:
        _wait_until_healthy(process, f"http://127.0.0.1:{port}", log, start_timeout_s)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        _stop(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"vLLM ended with {process.returncode}; the end of {log}:\n{_tail(log)}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", timeout=2.0).status_code == 200:
                return
        time.sleep(0.2)
    raise ServerFailed(f"vLLM was not healthy within {timeout_s:g} s; the end of {log}:\n{_tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
            break
    # The leader may have left members of its group behind.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
