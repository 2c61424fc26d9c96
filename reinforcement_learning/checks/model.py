"""The model that a run starts from."""

from __future__ import annotations

import json
from pathlib import Path

from agent.recipes import RecipeError


def check_model(model: str) -> str:
    path = Path(model)
    if path.is_dir():
        config = path / "config.json"
        if not config.is_file():
            raise RecipeError(f"run.model is {model}, but there is no {config}; give a Hugging Face model folder")
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
        if kind not in ("qwen2_5_vl", "qwen2_vl"):
            raise RecipeError(f"{model} is a {kind!r}; rollouts speak Qwen2-VL's and Qwen2.5-VL's ChatML only")
        return f"{model} ({kind})"
    if path.is_absolute() or model.startswith((".", "runs/", "saves/")):
        raise RecipeError(f"run.model is {model}, which is no folder; train it first or set run.model=…")
    return f"{model} (a hub name; it is fetched at the first use)"
