"""Work on many images over the nodes of a Ray cluster, by ray.data: `--workers ray`.

The cluster is that of RAY_ADDRESS, as training joins it; without one it is this machine. Every node needs this program and
the store's folder at the same place.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from curation.errors import CurationError
from reinforcement_learning.verl_adapter.cluster import ClusterError, joined, ray_address, worker_environment

_BLOCK = 64
"""Images of a task: enough to be worth its start, few enough to be spread."""
T = TypeVar("T")


def over_ray(paths: Sequence[Path], do: Callable[[Path], T]) -> list[T]:
    """What a function makes of each file, in their order.

    Args:
        paths: Of a store, which every node sees.
        do: Gives a plain value of JSON.

    Raises:
        CurationError: Ray is not installed, the cluster does not answer, or a node does not see the store.
    """
    if importlib.util.find_spec("ray") is None:
        raise CurationError("--workers ray needs the package ray: pip install 'deepeyes[rl]', or give a number of processes")
    whole = [path.resolve() for path in paths]
    with _ray():
        found = _mapped(whole, do)
    if blind := ", ".join(sorted({row["node"] for row in found if row["made"] is None})):
        raise CurationError(f"{blind}: no store at {_store_of(whole[0])}; put it where every node sees it at one place")
    made = {row["number"]: json.loads(row["made"]) for row in found}
    return [made[number] for number in range(len(whole))]


@contextlib.contextmanager
def _ray() -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
    elif ray_address() is not None:
        try:
            with joined(worker_environment({})):
                yield
        except ClusterError as error:
            raise CurationError(str(error)) from error
    else:
        try:
            env = {"env_vars": worker_environment({})}
            ray.init(
                address="local", include_dashboard=False, runtime_env=env, log_to_driver=False, logging_level=logging.ERROR
            )
        except Exception as error:  # a node that does not come up in 30 s has no class of its own
            raise CurationError(
                f"Ray does not start on this machine ({error}); is it too busy? Give a number of workers, or RAY_ADDRESS"
            ) from error
        yield  # it ends with the process: further steps need it, too


def _mapped(paths: Sequence[Path], do: Callable[[Path], Any]) -> list[dict[str, Any]]:
    import ray.data
    from ray.exceptions import RayError

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"number": number, "path": str(path)} for number, path in enumerate(paths)]
    blocks = ray.data.from_items(rows, override_num_blocks=max(1, len(rows) // _BLOCK))
    try:
        found: list[dict[str, Any]] = blocks.map(OfOne(do, str(_store_of(paths[0])))).take_all()
    except RayError as error:
        why = str(error).splitlines()[0]
        raise CurationError(f"Ray could not do the work ({why}); look at its nodes, and run again") from error
    return found


def _store_of(path: Path) -> Path:
    return path.parents[2]


class OfOne:
    """What a node does with one row.

    Args:
        do: See `over_ray`.
        store: A node that does not see its note sees no image: that is no fault of an image.
    """

    def __init__(self, do: Callable[[Path], Any], store: str) -> None:
        self._do, self._note = do, f"{store}/store.json"

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        made = json.dumps(self._do(Path(row["path"]))) if Path(self._note).is_file() else None
        return {"number": row["number"], "made": made, "node": socket.gethostname()}
