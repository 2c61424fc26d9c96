"""Two hundred cells of known answers while everything that runs them is killed and stopped: the short form of the benchmark."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
SEED = 2261
"""Of its first seven blows each is of another kind."""


@pytest.mark.parametrize("backend", ["fork", "jupyter"])
def test_whatever_is_killed_or_stopped_no_answer_is_wrong_nobody_is_blamed_wrongly_and_nothing_is_left(backend):
    options = ("--cells", "200", "--blows", "7", "--every-s", "0.7", "--users", "8", "--seed", str(SEED))
    command = [sys.executable, "-m", "benchmarks.sandbox_chaos", "--backend", backend, *options]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    for kind in ("zygote killed", "server killed", "Redis killed", "session killed", "server stopped", "zygote stopped"):
        assert f"x {kind}" in ended.stdout
