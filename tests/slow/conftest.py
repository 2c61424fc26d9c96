"""One whole quickstart, shared by every slow test: LLaMA-Factory, verl, Ray, vLLM, Redis and kernels, for real."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from serving.processes import start, stop
from tests.conftest import ROOT


@dataclass(frozen=True)
class Quickstart:
    directory: Path
    code: int
    output: str


def quickstart_command(directory: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "deepeyes.quickstart.pipeline", "--run", str(directory), *more]


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Quickstart:
    # At a desk, a finished run can be looked at again instead: TEST_QUICKSTART=runs/quickstart bash scripts/test.sh tests/slow
    if finished := os.environ.get("TEST_QUICKSTART"):
        return Quickstart(Path(finished).resolve(), 0, "")
    directory = tmp_path_factory.mktemp("quickstart") / "run"
    result = subprocess.run(
        quickstart_command(directory, "--judge", "vllm"),
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=2400,
        check=False,
    )
    logs = "".join(
        f"\n--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in (directory / "logs").glob("*.log")
    )
    return Quickstart(directory, result.returncode, result.stdout + result.stderr + (logs if result.returncode else ""))


def train_tiny(directory: Path, sandbox_url: str, *overrides: str) -> Path:
    """Train with the recipe tiny_cpu and some overrides; the run's folder, which is `directory`."""
    command = [sys.executable, "-W", "ignore", "-m", "reinforcement_learning.train", "--recipe", "tiny_cpu"]
    environment = {"PYTHONPATH": str(ROOT), "CODE_SANDBOX_URL": sandbox_url, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, f"run.directory={directory}", *overrides],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=1000,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return directory


_JUDGE = """
import sys, time
from tests.fake_model_server import model_server
with model_server(lambda messages: "INCORRECT", port=int(sys.argv[1])):
    time.sleep(900)
"""


@contextlib.contextmanager
def killable_judge(port, log):
    """A judge in a process of its own that says INCORRECT, and is killed with its open connections at the end."""
    process = start([sys.executable, "-c", _JUDGE, str(port)], log=log, env={"PYTHONPATH": str(ROOT)})
    try:
        yield process
    finally:
        stop(process, grace_s=0.1)
