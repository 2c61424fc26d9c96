"""What starts everything on a cluster. SLURM, Redis, Ray and the sandbox are stand-ins here; the scripts are the real ones, run by the real Bash."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

from serving.processes import free_port
from tests.conftest import ROOT

SBATCH = ROOT / "deploy/slurm/train.sbatch"
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
pids=()
trap 'for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null; done; wait; exit 143' TERM
for number in 0 1; do SLURM_NODEID=$number "$@" & pids+=($!); done
wait -n; status=$?
for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null; done; wait; exit $status
"""
LISTEN = """#!{python}
import os, signal, socket, sys, time
if os.environ.get("SANDBOX_FAILS") == os.environ["SLURM_NODEID"]: sys.exit("no sandbox here")
listener = socket.socket(); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1]))); listener.listen()
open(os.environ["SAID"] + "/sandbox" + os.environ["SLURM_NODEID"], "w").write(str(os.getpid()))
time.sleep(100)
"""
RAY = """#!/usr/bin/env bash
if [[ "$*" == *--head* ]]; then
    port=$(sed 's/.*--port \\([0-9]*\\).*/\\1/' <<<"$*")
    {python} -c "import socket, time; s = socket.create_server(('127.0.0.1', $port)); time.sleep(100)" >/dev/null 2>&1 &
    echo $! >"$SAID/head"
    until (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null; do sleep 0.05; done
elif [ "$1" = stop ] && [ "$SLURM_NODEID" = 0 ] && [ -s "$SAID/head" ]; then
    kill "$(cat "$SAID/head")"
fi
"""
PYTHON = """#!/usr/bin/env bash
if [[ "$*" != *reinforcement_learning.train* ]]; then exec {python} "$@"; fi
echo "TRAIN $RAY_ADDRESS $CODE_SANDBOX_URL $CODE_SANDBOX_TOKEN $*"
echo $$ >"$SAID/launcher"
if [ -n "${{TRAINS_FOR:-}}" ]; then exec sleep "$TRAINS_FOR"; fi
exit "${{TRAIN_STATUS:-0}}"
"""


@pytest.fixture
def job(tmp_path):
    """Starts the job in a group of its own; what it started is looked for at the end."""
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {
        "srun": SRUN,
        "scontrol": "#!/bin/sh\nprintf 'gpu1\\ngpu2\\n'\n",
        "redis-server": "#!/bin/sh\nexec sleep 100\n",
        "ray": RAY.format(python=sys.executable),
        "deepeyes": LISTEN.format(python=sys.executable),
        "python": PYTHON.format(python=sys.executable),
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    said = tmp_path / "said"
    said.mkdir()
    started = []

    def start(*arguments, **more):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "CODE_SANDBOX", "LLM_AS"))}
        environment |= {
            "PATH": f"{programs}:{os.environ['PATH']}", "VIRTUAL_ENV": str(tmp_path), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "gpu[1-2]",
            "SLURM_SUBMIT_DIR": str(ROOT), "DEEPEYES_JOB_DIR": str(tmp_path / "job"), "SANDBOX_PORT": str(free_port()), "SAID": str(said),
            "LLM_AS_A_JUDGE_BASE": "http://10.0.0.9:18901/v1", "NODE_IP": "127.0.0.1", "PORT": str(free_port()),
        }  # fmt: skip
        process = subprocess.Popen(
            ["bash", str(SBATCH), *arguments], env=environment | more, cwd=tmp_path, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        left = subprocess.run(["ps", "-o", "pid=,args=", "-g", str(process.pid)], capture_output=True, text=True).stdout
        running = [line for line in left.splitlines() if "defunct" not in line]
        if running:
            os.killpg(process.pid, signal.SIGKILL)
        assert running == []


def wait_for(path, within_s=60.0):
    end = time.monotonic() + within_s
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < end, f"no {path.name}"
        time.sleep(0.05)
    return int(path.read_text())


def test_a_job_starts_its_nodes_then_the_training_and_leaves_nothing_behind(job, tmp_path):
    process = job("agent.max_turns=4", RECIPE="tiny_cpu")
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 0, said
    told = re.search(r"TRAIN (\S+) (\S+) (\S+) (.*)", said)
    port = re.search(r":(\d+),", told[2])[1]
    assert told[2] == f"http://127.0.0.1:{port},http://127.0.0.1:{port}"
    assert re.fullmatch(r"127\.0\.0\.1:\d+", told[1])
    assert len(told[3]) == 48
    assert told[4] == "-m reinforcement_learning.train --recipe tiny_cpu agent.max_turns=4"
    token = tmp_path / "job/ray_token"
    assert (len(token.read_text()), token.stat().st_mode & 0o777) == (48, 0o600)


def test_the_jobs_status_is_the_trainings(job):
    process = job(TRAIN_STATUS="3")
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 3, said


def test_a_node_whose_sandbox_does_not_start_ends_the_job_before_the_training(job):
    process = job(SANDBOX_FAILS="1")
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "node 1: Redis or the sandbox did not start" in said
    assert "a node did not come up; its messages are above" in said
    assert "TRAIN" not in said


def test_a_node_that_ends_takes_the_training_with_it(job, tmp_path):
    process = job(TRAINS_FOR="60")
    wait_for(tmp_path / "said/launcher")
    os.kill(wait_for(tmp_path / "said/sandbox1"), signal.SIGKILL)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "a node has ended; the training is stopped, and the same command resumes it" in said


def test_a_cancelled_job_stops_the_training_and_its_nodes(job, tmp_path):
    process = job(TRAINS_FOR="60")
    wait_for(tmp_path / "said/launcher")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_the_job_outside_of_slurm_says_how_it_is_submitted():
    done = subprocess.run(["bash", str(SBATCH)], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}, timeout=30)
    assert done.returncode != 0
    assert "submit it with sbatch" in done.stderr


def test_the_compose_file_binds_loopback_and_starts_what_is_there():
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    services = compose["services"]
    assert set(services) == {"redis", "sandbox", "judge"}
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert "ports" not in services["redis"]
    build = services["sandbox"]["build"]
    assert (ROOT / "deploy" / build["context"] / build["dockerfile"]).is_file()
    assert (ROOT / services["judge"]["command"][1]).is_file()
    assert ":?" in services["sandbox"]["environment"]["CODE_SANDBOX_TOKEN"]
    variables = set(re.findall(r"\$\{(\w+)", (ROOT / "deploy/compose.yaml").read_text()))
    assert variables <= {"SANDBOX_SESSIONS", "CODE_SANDBOX_TOKEN", "JUDGE_MODEL", "JUDGE_GPUS", "JUDGE_API_KEY", "HF_TOKEN", "HF_ENDPOINT", "HF_HOME"}


def test_the_manifests_start_what_is_there_with_the_variables_that_the_kustomization_sets():
    folder = ROOT / "deploy/kubernetes"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found = {}
    for name in kustomization["resources"]:
        for document in yaml.safe_load_all((folder / name).read_text()):
            found[document["kind"], document["metadata"]["name"]] = document["spec"]
    values = dict(literal.split("=", 1) for literal in kustomization["configMapGenerator"][0]["literals"])
    sandboxes = found["StatefulSet", "sandbox"]
    urls = [f"http://sandbox-{number}.{sandboxes['serviceName']}:8000" for number in range(sandboxes["replicas"])]
    assert values["CODE_SANDBOX_URL"].split(",") == urls
    assert values["LLM_AS_A_JUDGE_BASE"] == "http://judge:18901/v1"
    training = found["RayJob", "deepeyes"]
    (launcher,) = re.findall(r"/opt/deepeyes-src/(\S+)", training["entrypoint"])
    assert (ROOT / launcher).is_file()
    cluster = training["rayClusterSpec"]
    assert f"ray=={cluster['rayVersion']}" in (ROOT / "requirements/gpu.lock").read_text().splitlines()
    assert 1 + cluster["workerGroupSpecs"][0]["replicas"] == sandboxes["replicas"] == 4
    recipe = ROOT / f"reinforcement_learning/recipes/{values['RECIPE']}.yaml"
    assert recipe.is_file()
    judge = found["Deployment", "judge"]["template"]["spec"]["containers"][0]
    assert (ROOT / judge["command"][1]).is_file()
