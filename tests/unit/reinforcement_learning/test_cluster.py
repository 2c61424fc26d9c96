"""What is said about machines before a run starts, and what reaches workers. Real nodes: tests/slow/test_two_nodes.py."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.recipes import RecipeError
from reinforcement_learning.checks import check_recipe, machine
from reinforcement_learning.recipe import load_recipe
from reinforcement_learning.verl_adapter import cluster, node_probe
from reinforcement_learning.verl_adapter.cluster import Node, differences, missing_gpus
from tests.conftest import ROOT

SCRIPTS = ROOT / "reinforcement_learning/scripts"


@pytest.fixture(autouse=True)
def nothing_from_this_shell(monkeypatch):
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "CUDA_VISIBLE_DEVICES", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SFT_MODEL", "m")


@pytest.fixture
def question(tmp_path):
    (tmp_path / "nonce").write_text("n")
    return node_probe.ProbeQuestion(
        nonce="n",
        nonce_file=str(tmp_path / "nonce"),
        paths=[str(tmp_path)],
        packages=["ray", "pytest", "no-such-package"],
        rooms=["agent"],
        secrets=["CODE_SANDBOX_TOKEN"],
        interface_variables=["GLOO_SOCKET_IFNAME"],
        health_urls=[],
        listening=[],
    )


@pytest.fixture
def facts(question, monkeypatch):
    monkeypatch.setenv("CODE_SANDBOX_TOKEN", "s3cret")
    return node_probe.look(question)


def test_a_node_equal_to_the_drivers_has_nothing_to_be_said(question, facts):
    assert differences("n1", facts, facts, question, device="cpu") == []
    assert facts["shared"]
    assert facts["versions"]["no-such-package"] == "missing"
    assert "s3cret" not in str(facts)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shared": False}, "n1 does not see what is written to"),
        ({"unreadable": ["/data/rl/reason.parquet"]}, "n1 cannot read /data/rl/reason.parquet"),
        ({"source": None}, "n1 cannot import this repository"),
        ({"source": "0"}, "n1 has other source files of this repository"),
        ({"python": "3.11.0"}, "n1 runs Python 3.11.0"),
        ({"versions": {"ray": "2.59.0", "pytest": None, "no-such-package": "missing"}}, "n1 has ray 2.59.0"),
        ({"secrets": {}}, "n1 has no CODE_SANDBOX_TOKEN; export it"),
        ({"secrets": {"CODE_SANDBOX_TOKEN": "other"}}, "n1 has another CODE_SANDBOX_TOKEN"),
        ({"wrong_interfaces": {"GLOO_SOCKET_IFNAME": "ib9"}}, "n1 has no interface 'ib9' (GLOO_SOCKET_IFNAME); there are"),
        ({"unreachable": {"http://10.0.0.9:8000": "timed out"}}, "n1 does not reach http://10.0.0.9:8000 (timed out)"),
        ({"shm_bytes": 64 << 20}, "n1 has 64 MiB of /dev/shm"),
        ({"open_files": 1024}, "n1 allows 1024 open files"),
    ],
)
def test_what_a_node_has_otherwise_is_said_with_its_name_and_the_next_step(question, facts, change, said):
    found = differences("n1", facts, facts | change, question, device="cuda")
    assert any(line.startswith(said) for line in found), found
    assert all(";" in line for line in found)


def test_all_that_is_wrong_with_a_node_is_said_at_once(question, facts):
    there = facts | {"shared": False, "secrets": {}, "open_files": 1024}
    assert len(differences("n1", facts, there, question, device="cpu")) == 3


def test_a_probe_says_what_is_wrong_where_it_runs(question, monkeypatch, tmp_path):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "nosuch0")
    asked = question | {
        "nonce": "other",
        "paths": [str(tmp_path / "missing")],
        "rooms": ["no_such_room"],
        "health_urls": ["http://127.0.0.1:9", f"unix:{tmp_path}/none.sock"],
        "listening": ["http://127.0.0.1:9/v1", "http://no.such.host.invalid/v1"],
    }
    facts = node_probe.look(asked)
    assert not facts["shared"]
    assert facts["unreadable"] == [str(tmp_path / "missing")]
    assert facts["source"] is None
    assert facts["wrong_interfaces"] == {"GLOO_SOCKET_IFNAME": "nosuch0"}
    assert set(facts["unreachable"]) == {*asked["health_urls"], *asked["listening"]}


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [("lo", True), ("^docker", True), ("=lo", True), ("=l", False), ("l", True), ("eth9,lo", True), ("eth9", False)],
)
def test_interfaces_are_named_as_nccl_and_gloo_name_them(wanted, fits):
    assert node_probe._names_one(wanted, ["lo", "eth0"]) is fits


def test_a_changed_source_file_changes_the_digest(tmp_path, monkeypatch):
    room = tmp_path / "a_room"
    room.mkdir()
    (room / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = node_probe.source_digest(["a_room"])
    (room / "part.py").write_text("x = 1")
    assert before != node_probe.source_digest(["a_room"])


def nodes(*sizes, cpus=200.0):
    return [Node(f"id{n}", f"10.0.0.{n}", float(all_), float(free), cpus, cpus) for n, (all_, free) in enumerate(sizes)]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (nodes(*[(8, 8)] * 4), None),
        (nodes(*[(8, 8)] * 5), None),
        (nodes((8, 8)), "asked 32 GPUs (verl.trainer: 4 x 8), Ray has 8"),
        (nodes(), "asked 32 GPUs (verl.trainer: 4 x 8), Ray has 0"),
        (nodes(*[(8, 8)] * 3, (8, 2)), "Ray has 32, 26 of them free"),
        (nodes(*[(4, 4)] * 8), "only 0 node(s) with 8 free"),
        (nodes(*[(8, 8)] * 4, cpus=16.0), "verl reserves 3 CPUs a GPU, 24 a node"),
    ],
)
def test_gpus_that_verl_could_not_place_are_said_before_it_waits_for_them(found, said):
    problems = missing_gpus(found, 4, 8)
    assert (problems == []) if said is None else (said in problems[0])


def test_the_cpus_that_verl_reserves_are_those_of_its_resource_pools():
    source = (Path(sys.prefix) / "lib/python3.11/site-packages/verl/single_controller/ray/base.py").read_text()
    assert f"max_colocate_count: int = {cluster.CPUS_PER_GPU}\n" in source


def failed(recipe, name):
    return next(check.message for check in check_recipe(recipe) if check.name == name and not check.ok)


def test_a_recipe_for_32_gpus_on_one_machine_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr(machine, "_gpus_here", lambda recipe: 0)
    message = failed(load_recipe("qwen2_5_vl_7b"), "GPUs and nodes")
    assert "asked 32 GPUs" in message
    assert "RAY_ADDRESS is not set" in message


@pytest.mark.parametrize(
    ("visible", "listed", "count"),
    [
        (None, "GPU 0: H100 (UUID: x)\n  MIG 1g: (UUID: y)\nGPU 1: H100 (UUID: z)\n", 2),
        (None, "", 0),
        ("0,1,2", "", 3),
        ("", "GPU 0: H100\n", 0),
        ("-1", "GPU 0: H100\n", 0),
    ],
)
def test_gpus_of_a_lone_machine_are_counted_as_torch_would_see_them(tmp_path, monkeypatch, visible, listed, count):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat <<'EOF'\n{listed}EOF\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    one = load_recipe("qwen2_5_vl_7b", ["verl.trainer.nnodes=1"])
    assert machine._gpus_here(one) == count
    assert f"asked 8 GPUs (verl.trainer: 1 x 8), this machine has {count}" in failed(one, "GPUs and nodes")


def test_the_pretended_gpu_of_a_cpu_recipe_counts(toy):
    recipe = ["run.model=m", f"run.train_files=[{toy}/data/rl_train.parquet]", f"run.directory={toy}/rl"]
    assert "this machine" in machine.check_nodes(load_recipe("tiny_cpu", recipe))
    with pytest.raises(RecipeError, match="asked 2 GPUs .* this machine has 1"):
        machine.check_nodes(load_recipe("tiny_cpu", [*recipe, "verl.trainer.n_gpus_per_node=2"]))
    assert not list(toy.glob("**/.cluster-check*"))


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:9", "no Ray at RAY_ADDRESS=127.0.0.1:9"), ("ray://head:10001", "start on a node of the cluster")],
)
def test_an_address_without_a_ray_is_said_at_once(monkeypatch, address, said):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert said in failed(load_recipe("qwen2_5_vl_7b"), "GPUs and nodes")


@pytest.mark.parametrize(
    ("recipe", "overrides", "overlays", "installed", "refused"),
    [
        ("qwen2_5_vl_7b", [], [], False, True),
        ("qwen2_5_vl_7b", [], [], True, False),
        ("qwen2_5_vl_7b", [], ["_no_flash_attn"], False, False),
        ("tiny_cpu", [], [], False, False),
        # verl would end with a NameError in the first forward pass.
        ("tiny_cpu", ["verl.actor_rollout_ref.model.use_remove_padding=true"], [], False, True),
        ("qwen2_5_vl_7b", ["verl.actor_rollout_ref.model.use_remove_padding=false"], [], False, True),
    ],
)
def test_an_attention_back_end_that_is_not_installed_is_refused_and_the_overlay_named(
    monkeypatch, recipe, overrides, overlays, installed, refused
):
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: object() if installed else None)
    loaded = load_recipe(recipe, overrides, overlays=overlays)
    if not refused:
        machine.check_attention(loaded)
        return
    with pytest.raises(RecipeError, match="flash_attn is not installed: add --overlay _no_flash_attn"):
        machine.check_attention(loaded)


def test_what_verl_asks_for_unless_told_is_what_the_check_assumes():
    source = (Path(sys.prefix) / "lib/python3.11/site-packages/verl/workers/config/model.py").read_text()
    assert 'get("attn_implementation", "flash_attention_2")' in source
    assert "use_remove_padding: bool = True" in source


def test_workers_get_the_plug_in_the_path_and_the_launchers_network_settings_but_no_secret(monkeypatch):
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    monkeypatch.setenv("HF_HOME", "/shared/hf")
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    monkeypatch.setenv("CODE_SANDBOX_TOKEN", "s3cret")
    monkeypatch.setenv("WANDB_API_KEY", "s3cret")
    monkeypatch.setenv("PYTHONPATH", "/more")
    env = cluster.worker_environment({"VERL_PLATFORM": "cpu", "HF_HOME": "/run/hf"})
    assert env["NCCL_SOCKET_IFNAME"] == "ib0"
    assert env["HF_HOME"] == "/run/hf", "the recipe's own variables win"
    assert env["VERL_PLATFORM"] == "cpu"
    assert env["PYTHONPATH"] == f"{ROOT}{os.pathsep}/more"
    assert "s3cret" not in env.values()


def test_a_running_cluster_is_not_given_the_size_of_a_local_one():
    given = {"num_cpus": 16, "num_gpus": 1, "include_dashboard": False, "runtime_env": {"env_vars": {}}, "_temp_dir": "x"}
    assert cluster.without_local_keys(given) == {"runtime_env": {"env_vars": {}}, "_temp_dir": "x"}


@pytest.fixture
def machine_with_ray(tmp_path):
    """A copy of the scripts at a path with spaces, on a machine with a Ray that only says what it was told."""
    root = tmp_path / "a path with spaces"
    shutil.copytree(SCRIPTS, root / "reinforcement_learning/scripts")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ray").write_text('#!/bin/sh\necho "RAY $RAY_AUTH_MODE $GLOO_SOCKET_IFNAME $PYTHONPATH: $*"\n')
    (tools / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)

    def call(script, *arguments, **env):
        return subprocess.run(
            ["bash", root / "reinforcement_learning/scripts" / script, *arguments],
            env={
                "PATH": f"{tools}:/usr/bin:/bin",
                "HOME": str(tmp_path / "home"),
                "VIRTUAL_ENV": "x",
                "NODE_IP": "127.0.0.1",
                **env,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


def test_head_worker_and_status_use_one_mode_and_token_whatever_an_earlier_run_left_behind(machine_with_ray, tmp_path):
    token = tmp_path / "home/.ray/auth_token"
    head = machine_with_ray("ray_head.sh", "--num-gpus", "1", PORT="1")
    assert "RAY token lo" in head.stdout, head.stderr
    assert "a path with spaces: start --head --node-ip-address 127.0.0.1 --port 1" in head.stdout
    assert "--num-gpus 1" in head.stdout
    assert token.stat().st_mode & 0o777 == 0o600
    made = token.read_text()
    assert made not in head.stdout
    machine_with_ray("ray_head.sh", PORT="1")
    assert token.read_text() == made, "a token that is there is kept"
    assert "RAY token" in machine_with_ray("ray_status.sh").stdout
    assert "RAY disabled" in machine_with_ray("ray_status.sh", RAY_AUTH_MODE="disabled").stdout


def test_a_worker_without_token_or_head_or_address_is_refused_with_the_next_step(machine_with_ray, tmp_path):
    assert "copy the head's there" in machine_with_ray("ray_worker.sh", RAY_HEAD="127.0.0.1:9").stderr
    assert (
        "nobody answers at RAY_HEAD" in machine_with_ray("ray_worker.sh", RAY_HEAD="127.0.0.1:9", RAY_AUTH_TOKEN="t").stderr
    )
    assert "set it to the address of the head" in machine_with_ray("ray_worker.sh").stderr
    wrong = machine_with_ray("ray_head.sh", PORT="1", NODE_IP="203.0.113.9")
    assert wrong.returncode != 0
    assert "no interface of this node has the address 203.0.113.9" in wrong.stderr


def test_secrets_are_named_and_never_shown(machine_with_ray):
    said = machine_with_ray("ray_head.sh", PORT="1", CODE_SANDBOX_TOKEN="s3cret").stdout
    assert "will have: CODE_SANDBOX_TOKEN" in said
    assert "s3cret" not in said
    assert "none (export them" in machine_with_ray("ray_head.sh", PORT="1").stdout


def test_the_scripts_name_the_secrets_that_the_check_looks_for():
    assert " ".join(cluster._SECRETS) in (SCRIPTS / "ray_env.sh").read_text()
