"""One whole quickstart, shared by every slow test: LLaMA-Factory, verl, Ray, vLLM, Redis and kernels, for real."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT


@dataclass(frozen=True)
class Quickstart:
    directory: Path
    code: int
    output: str


def quickstart_command(directory: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "scripts.quickstart", "--run", str(directory), *more]


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
