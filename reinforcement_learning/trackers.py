"""verl's trackers (`verl.trainer.logger`): what each needs, and where it writes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from agent.files import write_whole

PACKAGES = {
    "console": "",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "swanlab": "swanlab",
    "trackio": "trackio",
    "clearml": "clearml",
    "vemlp_wandb": "volcengine_ml_platform",
    "rl_insight": "rl_insight",
    "file": "",
}
"""Tracker -> the module that it imports; none for those that verl brings (verl/utils/tracking.py, verl 0.9.1)."""
_WANDB_FILE = "wandb_run_id"


def tracker_names(loggers: Sequence[str] | str | None) -> list[str]:
    """The trackers of a recipe; verl takes one name or a list."""
    return [loggers] if isinstance(loggers, str) else list(loggers or ())


def tracker_environment(directory: Path, loggers: Sequence[str] | str, *, new: bool) -> dict[str, str]:
    """What makes trackers write into a run's folder, and every start of a run log to the same run of wandb.

    Where a variable is set already, it stays.

    Args:
        directory: The run's folder; it keeps the id.
        loggers: verl's `trainer.logger`.
        new: Begin another wandb run.
    """
    places = {
        "file": ("VERL_FILE_LOGGER_PATH", os.environ.get("VERL_FILE_LOGGER_PATH") or directory / "file_logger.jsonl"),
        "mlflow": ("MLFLOW_TRACKING_URI", os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{directory / 'mlflow.db'}"),
        "swanlab": ("SWANLAB_LOG_DIR", os.environ.get("SWANLAB_LOG_DIR") or directory / "swanlog"),
        "tensorboard": ("TENSORBOARD_DIR", os.environ.get("TENSORBOARD_DIR") or directory / "tensorboard"),
        "trackio": ("TRACKIO_DIR", os.environ.get("TRACKIO_DIR") or directory / "trackio"),
        "wandb": ("WANDB_DIR", os.environ.get("WANDB_DIR") or directory),
    }
    names = tracker_names(loggers)
    found = {variable: str(value) for name, (variable, value) in places.items() if name in names}
    return found | (_wandb_run(directory, new=new) if "wandb" in names else {})


def _wandb_run(directory: Path, *, new: bool) -> dict[str, str]:
    path = directory / _WANDB_FILE
    kept = path.read_text(encoding="utf-8").strip() if path.is_file() and not new else ""
    name = os.environ.get("WANDB_RUN_ID") or kept or secrets.token_hex(8)
    if name != kept:
        write_whole(path, name, durable=True)
    return {"WANDB_RUN_ID": name, "WANDB_RESUME": "allow"}
