"""A vLLM server for a checkpoint folder, for as long as an evaluation lasts."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from serving.processes import ProgramFailed, check_health, free_port, start, stop, wait_until_up

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
        ProgramFailed: There is no model, or vLLM ended or was not healthy in time; the message holds the end of its log.
    """
    if not (checkpoint / "config.json").is_file():
        raise ProgramFailed(f"{checkpoint} is no model folder: it has no config.json")
    port = free_port()
    command = [
        sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(checkpoint), "--host", "127.0.0.1",
        "--port", str(port), "--served-model-name", served_name, "--limit-mm-per-prompt", '{"image": 16, "video": 0}',
        *(_CPU_ARGUMENTS if cpu else []), *arguments,
    ]  # fmt: skip
    log.unlink(missing_ok=True)
    process = start(command, log=log, env=_CPU_ENVIRONMENT if cpu else {})
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_up("vLLM", process, lambda: check_health(url), log=log, timeout_s=start_timeout_s)
        yield f"{url}/v1"
    finally:
        stop(process)
