"""The sandbox's room is a program of its own: nothing else of this repository has to be where it runs."""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from code_sandbox.client import SandboxClient
from serving.processes import free_port, sandbox_server, start, stop
from tests.conftest import ROOT, png

pytestmark = pytest.mark.services
ROOMS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """A folder with the sandbox's room; whoever imports another room is told that it is not there."""
    folder = tmp_path / "alone"
    shutil.copytree(ROOT / "code_sandbox", folder / "code_sandbox", ignore=shutil.ignore_patterns("__pycache__"))
    for room in {*ROOMS, "scripts", "tests"} - {"code_sandbox"}:
        (folder / f"{room}.py").write_text(f"raise ModuleNotFoundError('{room} is not part of the sandbox')\n")
    return folder


async def test_a_server_of_the_room_alone_runs_cells_on_both_back_ends(alone, redis_url, tmp_path, monkeypatch):
    monkeypatch.chdir(alone)
    monkeypatch.setenv("PYTHONPATH", str(alone))
    for backend in ("fork", "jupyter"):
        arguments = ("--backend", backend, "--spare-kernels", "1", "--require-level", "0")
        with sandbox_server(tmp_path / backend, redis_url, arguments=arguments) as url:
            async with SandboxClient(url) as client:
                session = await client.open([png(64, 48)])
                result = await session.execute(
                    "import os, matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nimage_1.size"
                )
                assert (result.result, len(result.images)) == ("(64, 48)", 1)
                # Its own code, and not that of this repository, has run.
                where = await session.execute("import code_sandbox\ncode_sandbox.__file__")
                assert str(alone) in where.result
                await session.close()


@pytest.mark.parametrize(
    ("module", "said"),
    [("code_sandbox.server.doctor", "isolation level"), ("code_sandbox.attacks", "no sandbox at http://127.0.0.1:9")],
)
def test_the_rooms_other_programs_need_no_other_room(alone, module, said):
    arguments = ["--url", "http://127.0.0.1:9"] if module.endswith("attacks") else []
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=alone,
        env=os.environ | {"PYTHONPATH": str(alone)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said in result.stdout + result.stderr
    assert "not part of the sandbox" not in result.stdout + result.stderr


async def test_the_script_for_many_servers_starts_one_for_each_group_of_cores(alone, redis_url, tmp_path):
    port = free_port()
    environment = {
        "PORT": str(port),
        "CORES_PER_SERVER": str(os.cpu_count()),
        "VENV": str(Path(sys.executable).parent.parent),
    }
    command = ["bash", str(alone / "code_sandbox/run_servers.sh"), "--redis-url", redis_url, "--require-level", "0"]
    log = tmp_path / "log"
    process = start(command, log=log, env=environment)
    try:
        while f"CODE_SANDBOX_URL=http://127.0.0.1:{port}\n" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        async with SandboxClient(f"http://127.0.0.1:{port}") as client:
            session = await client.open()
            assert (await session.execute("1 + 1")).result == "2"
            await session.close()
    finally:
        stop(process, grace_s=40.0)
