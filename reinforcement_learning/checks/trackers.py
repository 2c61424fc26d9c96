"""Where metrics go: verl's trackers, their packages and their logins."""

from __future__ import annotations

import importlib.util
import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

from agent.recipes import RecipeError
from reinforcement_learning.recipe import Recipe, verl_value
from reinforcement_learning.trackers import PACKAGES, tracker_names

_WANDB = "https://api.wandb.ai"
_OFFLINE = ("offline", "disabled", "dryrun")


def check_trackers(recipe: Recipe) -> str:
    """Each tracker of the recipe is one of verl's, is installed, and can log in or writes to this machine only.

    Raises:
        RecipeError: verl would end the run after models were loaded, or go on without the tracker.
    """
    names = tracker_names(verl_value(recipe, "trainer.logger"))
    if unknown := [name for name in names if name not in PACKAGES]:
        raise RecipeError(f"verl has no tracker {unknown[0]!r} (verl.trainer.logger); there are: {', '.join(PACKAGES)}")
    missing = [name for name in names if (module := PACKAGES[name]) and importlib.util.find_spec(module) is None]
    if missing:
        packages = " ".join(PACKAGES[name].replace("_", "-") for name in missing)
        raise RecipeError(f"the recipe logs to {' and '.join(missing)}, not installed here: pip install {packages}")
    env = {**os.environ, **recipe.run.env}
    said = [_wandb(env)] if "wandb" in names else []
    if "swanlab" in names:
        said.append(_swanlab(recipe))
    said += [name for name in names if name not in ("wandb", "swanlab")]
    return f"metrics go to {', '.join([*said, 'metrics.jsonl'])}"


def _wandb(env: dict[str, str]) -> str:
    mode = env.get("WANDB_MODE", "").lower()
    if mode in _OFFLINE:
        return f"wandb ({mode})"
    if env.get("WANDB_API_KEY"):
        return "wandb (with WANDB_API_KEY)"
    host = urlsplit(env.get("WANDB_BASE_URL") or _WANDB).hostname or ""
    if _in_netrc(Path(env.get("NETRC") or Path.home() / ".netrc"), host):
        return f"wandb (logged in to {host})"
    raise RecipeError(
        f"the recipe logs to wandb and there is no key for {host}: log in (wandb login, or export WANDB_API_KEY), set "
        "WANDB_MODE=offline, or leave it out (verl.trainer.logger=[console])"
    )


def _swanlab(recipe: Recipe) -> str:
    mode = (recipe.run.env.get("SWANLAB_MODE") or os.environ.get("SWANLAB_MODE", "cloud")).lower()
    if mode != "cloud":
        return f"swanlab ({mode})"
    if os.environ.get("SWANLAB_API_KEY") or (Path.home() / ".swanlab/.netrc").is_file():
        return "swanlab (logged in)"
    raise RecipeError(
        "the recipe logs to swanlab and there is no key: log in (swanlab login, or export SWANLAB_API_KEY), set "
        "SWANLAB_MODE=local, or leave it out (verl.trainer.logger=[console])"
    )


def _in_netrc(path: Path, host: str) -> bool:
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
