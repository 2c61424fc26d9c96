"""The model that a run starts from: there, and of a family that rollouts speak."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from agent.recipes import RecipeError
from reinforcement_learning.recipe import Recipe

FAMILIES = {"qwen2_5_vl": "Qwen2.5-VL", "qwen2_vl": "Qwen2-VL"}
"""`model_type` of the models whose ChatML and image tokens rollouts speak."""
_NAME = re.compile(r"qwen-?2(?:[._]5)?-?vl", re.IGNORECASE)
_HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
_HUB_S = 5.0


def check_model(recipe: Recipe) -> str:
    """A folder is read; of a hub name its config.json is looked at, in the cache or with one short request.

    Raises:
        RecipeError: No model, or one of another family; the message lists those that are supported.
    """
    model = recipe.run.model
    path = Path(model)
    if path.is_dir():
        config = path / "config.json"
        if not config.is_file():
            raise RecipeError(f"run.model is {model}, but there is no {config}; give a Hugging Face model folder")
        try:
            kind = _family(model, json.loads(config.read_text(encoding="utf-8")))
        except (ValueError, AttributeError) as error:
            if isinstance(error, RecipeError):
                raise
            raise RecipeError(f"{config} is no readable JSON ({error}); was the model's download cut off?") from error
        if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
            raise RecipeError(f"run.model is {model}, which has a config.json but no weights (*.safetensors)")
        return f"{model} ({kind})"
    if path.is_absolute() or model.startswith((".", "runs/", "saves/", "~")) or not _HUB_NAME.fullmatch(model):
        raise RecipeError(f"run.model is {model}, which is no folder; train it first or set run.model=…")
    return _hub_model(model, offline=_is_set(recipe.run.env.get("HF_HUB_OFFLINE") or os.environ.get("HF_HUB_OFFLINE")))


def _is_set(value: str | None) -> bool:
    return (value or "").upper() in ("1", "TRUE", "YES", "ON")


def _family(model: str, config: Any) -> str:
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise RecipeError(f"{model} is a {kind!r}; families supported: {_families()}. Set run.model to one of them")
    return str(kind)


def _families() -> str:
    return ", ".join(f"{name} ({kind})" for kind, name in FAMILIES.items())


def _hub_model(model: str, *, offline: bool) -> str:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "config.json")
    if isinstance(cached, str):
        return f"{model} ({_family(model, json.loads(Path(cached).read_text(encoding='utf-8')))}, in the hub's cache)"
    if offline:
        why = "HF_HUB_OFFLINE is set and it is not in the hub's cache"
        raise RecipeError(f"run.model is {model}: {why}; download it, or give a folder. Families supported: {_families()}")
    config, why = _fetch_config(model)
    if config is not None:
        return f"{model} ({_family(model, config)}; a hub name, fetched at the first use)"
    if not _NAME.search(model):
        raise RecipeError(f"run.model is {model}, which cannot be looked at ({why}); families supported: {_families()}")
    return f"{model} (a hub name that could not be looked at: {why}; it is fetched at the first use)"


def _fetch_config(model: str) -> tuple[dict[str, Any] | None, str]:
    """One request, because the hub's own client tries again for minutes where there is no network.

    Raises:
        RecipeError: The hub has no such model.
    """
    import httpx
    from huggingface_hub import get_token

    address = f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co').rstrip('/')}/{model}/resolve/main/config.json"
    token = get_token()
    try:
        reply = httpx.get(
            address, timeout=_HUB_S, follow_redirects=True, headers={"Authorization": f"Bearer {token}"} if token else {}
        )
    except httpx.HTTPError as error:
        return None, f"{type(error).__name__}: {error}"
    if reply.status_code in (401, 403, 404):
        raise RecipeError(
            f"run.model is {model}: {address} answers {reply.status_code}; is the name right, and are you logged in "
            f"(hf auth login)? Families supported: {_families()}"
        )
    try:
        return (reply.json(), "") if reply.is_success else (None, f"the hub answers {reply.status_code}")
    except ValueError:
        return None, "what the hub answers is no JSON"
