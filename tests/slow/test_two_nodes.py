"""Two nodes: raylets started by our scripts in token mode, a rank, a rollout replica and a sandbox on each, an untied model.

What the 7B on 32 GPUs does and a local run on one pretended GPU never did. Both raylets are on this machine.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import httpx
import psutil
import pytest

from agent.trajectory import read_rollouts
from deepeyes.quickstart.tiny_model import untie
from serving.processes import free_port, marked, redis_server, start, stop
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]
STEPS = 3
AWAY_S = 60.0
SCRIPTS = ROOT / "reinforcement_learning/scripts"
TOKEN = "secret-of-the-sandboxes"


def call(script, *arguments, env, timeout_s=300):
    result = subprocess.run(
        ["bash", SCRIPTS / script, *arguments],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@contextlib.contextmanager
def two_nodes(directory):
    """Head and worker, each with a pretended GPU; yields the environment of a launcher."""
    home, port = directory / "home", free_port()
    home.mkdir()
    # A local run has left its token behind: since Ray 2.60 this switches a head to token mode, and nobody else.
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text("0123456789abcdef0123456789abcdef")
    shared = {
        "HOME": str(home),
        "PORT": str(port),
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
        "CODE_SANDBOX_TOKEN": TOKEN,
        "OMP_NUM_THREADS": "1",
    }
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
        os.environ.pop(name, None)
    pretended = ("--num-gpus", "1", "--num-cpus", "16", "--object-store-memory", "800000000")
    # Ray's sockets lie there, and a socket's path may have 107 characters.
    temporary = tempfile.mkdtemp(prefix="ray")
    said = call("ray_head.sh", "--temp-dir", temporary, "--include-dashboard", "false", *pretended, env=shared)
    address = said.split("export RAY_ADDRESS=")[1].split()[0]
    assert "CODE_SANDBOX_TOKEN" in said
    assert TOKEN not in said
    call("ray_worker.sh", *pretended, env=shared | {"RAY_HEAD": address})
    # The status lags behind the nodes that have joined.
    deadline = time.monotonic() + 120
    while "2.0 GPU" not in (status := call("ray_status.sh", env=shared)):
        assert time.monotonic() < deadline, status
        time.sleep(1)
    try:
        yield shared | {"RAY_ADDRESS": address}
    finally:
        stop_ray(temporary)
        shutil.rmtree(temporary, ignore_errors=True)


def stop_ray(temporary):
    """What `ray start` left running there; the agents rename themselves, so that nothing but their parent tells whose they are."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if temporary in " ".join(process.cmdline()):
                found += [process, *process.children(recursive=True)]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(found, timeout=10)


@contextlib.contextmanager
def sandbox(directory, redis_url, port):
    """A server that can be killed, and started again where it was."""
    command = [sys.executable, "-m", "deepeyes.cli", "sandbox", "serve", "--port", str(port), "--redis-url", redis_url]
    process = start(
        [*command, "--max-sessions", "128", "--require-level", "0"],
        log=directory / f"sandbox{port}.log",
        env={"CODE_SANDBOX_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/health", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=2)
            break
        assert time.monotonic() < deadline, (directory / f"sandbox{port}.log").read_text()[-2000:]
        time.sleep(0.1)
    try:
        yield process
    finally:
        stop(process, grace_s=0.1)


class Run:
    """A training that is watched through its log and its metrics."""

    def __init__(self, command, directory, env):
        self.log, self.metrics = directory / "rl.log", directory / "rl/metrics.jsonl"
        self.process = start(command, log=self.log, env=env)

    def text(self):
        return self.log.read_text(errors="replace")

    def rows(self):
        return [json.loads(line) for line in self.metrics.read_text().splitlines()] if self.metrics.exists() else []

    def wait(self, condition, timeout_s):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert self.process.poll() is None, self.text()[-6000:]
            assert time.monotonic() < deadline, f"not within {timeout_s} s:\n{self.text()[-6000:]}"
            time.sleep(0.2)


def test_an_untied_model_trains_on_two_nodes_and_outlives_its_sandboxes(quickstart, tmp_path):
    untie(quickstart.directory / "models/sft", tmp_path / "untied")
    ports = (free_port(), free_port())
    command = [
        sys.executable, "-m", "reinforcement_learning.train", "--recipe", "tiny_cpu",
        f"run.directory={tmp_path / 'rl'}", f"run.model={tmp_path / 'untied'}",
        "verl.trainer.nnodes=2", "verl.trainer.n_gpus_per_node=1", "verl.actor_rollout_ref.rollout.agent.num_workers=2",
        "agent.sandbox_outage={poll_s: 1.0}", "verl.trainer.save_freq=-1", f"verl.trainer.total_training_steps={STEPS}",
    ]  # fmt: skip
    with marked(), redis_server(tmp_path) as redis_url, two_nodes(tmp_path) as env, contextlib.ExitStack() as servers:
        env |= {
            "QUICKSTART_RUN": str(quickstart.directory),
            "CODE_SANDBOX_URL": ",".join(f"http://127.0.0.1:{port}" for port in ports),
            "WANDB_MODE": "disabled",
            "PYTHONPATH": str(ROOT),
        }
        with sandbox(tmp_path, redis_url, ports[0]):
            with sandbox(tmp_path, redis_url, ports[1]):
                run = Run(command, tmp_path, env)
                run.wait(lambda: run.rows(), 900)
            # One is gone, with sessions of the second step in it.
            run.wait(lambda: len(run.rows()) == 2, 400)
        # And now the other, with those of the third.
        run.wait(lambda: "training waits for the sandbox" in run.text(), 120)
        time.sleep(AWAY_S)
        assert len(run.rows()) == 2
        servers.enter_context(sandbox(tmp_path, redis_url, ports[0]))
        run.wait(lambda: "the sandbox is back after" in run.text(), 60)
        assert run.process.wait(400) == 0, run.text()[-6000:]
    assert "2 node(s) with 2 GPUs" in run.text()
    assert TOKEN not in run.text()
    assert [row["step"] for row in run.rows()] == [1, 2, 3]
    for row in run.rows():
        assert row["training/rollout_actor_probs_pearson_corr"] >= 0.9999
        assert row["routing/replicas_per_group/max"] == 1.0, "all rollouts of a prompt on one of the two replicas"
        assert row["episode/failed_frac"] == 0.0
    assert len(list(read_rollouts(tmp_path / "rl/rollouts"))) == STEPS * 64
