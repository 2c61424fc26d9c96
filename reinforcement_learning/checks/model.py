"""The model that a run starts from: there, and of a family that rollouts speak."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from agent.chat_formats import UnknownFamily, chat_template_of, described, format_of, format_of_hub_name
from agent.recipes import RecipeError
from reinforcement_learning.checks.templates import difference
from reinforcement_learning.recipe import Recipe

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
            kind = _kind(model, json.loads(config.read_text(encoding="utf-8")), chat_template_of(path))
        except RecipeError:
            raise
        except (ValueError, AttributeError) as error:
            raise RecipeError(f"{config} is no readable JSON ({error}); was the model's download cut off?") from error
        if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
            raise RecipeError(f"run.model is {model}, which has a config.json but no weights (*.safetensors)")
        return f"{model} ({kind})"
    if path.is_absolute() or model.startswith((".", "runs/", "saves/", "~")) or not _HUB_NAME.fullmatch(model):
        raise RecipeError(f"run.model is {model}, which is no folder; train it first or set run.model=…")
    return _hub_model(model, offline=_is_set(recipe.run.env.get("HF_HUB_OFFLINE") or os.environ.get("HF_HUB_OFFLINE")))


def _is_set(value: str | None) -> bool:
    return (value or "").upper() in ("1", "TRUE", "YES", "ON")


def _kind(model: str, config: Any, chat_template: str = "") -> str:
    kind = config.get("model_type")
    try:
        chat_format = format_of(kind, chat_template)
    except UnknownFamily as error:
        raise RecipeError(f"{model} is a {kind!r}. {described()}") from error
    differs = difference(chat_template, chat_format) if chat_template else ""
    return f"{kind}, talked to as {chat_format.name}{differs and f'; its own chat template is another: {differs}'}"


def _hub_model(model: str, *, offline: bool) -> str:
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "config.json")
    if isinstance(cached, str):
        kind = _kind(model, json.loads(Path(cached).read_text(encoding="utf-8")), chat_template_of(Path(cached).parent))
        return f"{model} ({kind}, in the hub's cache)"
    if offline:
        why = "HF_HUB_OFFLINE is set and it is not in the hub's cache"
        raise RecipeError(f"run.model is {model}: {why}; download it, or give a folder. {described()}")
    config, why = _fetch_config(model)
    if config is not None:
        return f"{model} ({_kind(model, config)}; a hub name, fetched at the first use)"
    if format_of_hub_name(model) is None:
        raise RecipeError(f"run.model is {model}, which cannot be looked at ({why}). {described()}")
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
            f"(hf auth login)? {described()}"
        )
    try:
        return (reply.json(), "") if reply.is_success else (None, f"the hub answers {reply.status_code}")
    except ValueError:
        return None, "what the hub answers is no JSON"
