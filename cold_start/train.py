"""Check and prepare everything, then hand over to `llamafactory-cli train`.

python -m cold_start.train RECIPE [key=value …]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from agent.recipes import RecipeError
from cold_start.prepare_data import DATASET, prepare_data
from cold_start.recipe import Recipe, load_recipe

_CHECKPOINT = re.compile(r"checkpoint-(\d+)$")


def latest_checkpoint(output_dir: Path) -> Path | None:
    """The newest checkpoint that was written to its end; LLaMA-Factory writes the trainer's state last."""
    found = []
    for path in output_dir.glob("checkpoint-*"):
        match = _CHECKPOINT.search(path.name)
        if match and (path / "trainer_state.json").is_file():
            found.append((int(match[1]), path))
    return max(found)[1] if found else None


def resolve(recipe: Recipe, output_dir: Path) -> dict[str, Any]:
    """Fill in the data set and, if there is a checkpoint, resuming from it."""
    settings = dict(recipe.llamafactory)
    settings |= {
        "dataset": DATASET,
        "dataset_dir": str(output_dir / "data"),
        "output_dir": str(output_dir),
        "overwrite_cache": True,
    }
    checkpoint = latest_checkpoint(output_dir)
    if checkpoint is not None:
        # Resuming alone would load the weights under names that no longer match and silently start the language model
        # afresh (transformers issue 43701); reading the model itself from the checkpoint loads them all.
        settings |= {"model_name_or_path": str(checkpoint), "resume_from_checkpoint": str(checkpoint)}
        settings["overwrite_output_dir"] = False
    return settings


def _token_counter(model: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _check_model(model: str) -> None:
    looks_local = model.startswith((".", "/", "runs/", "saves/")) or Path(model).exists()
    if looks_local and not (Path(model) / "config.json").is_file():
        raise RecipeError(f"model_name_or_path is {model!r}, but there is no {model}/config.json; give a model's folder")


def _check_disk(output_dir: Path, model: str) -> None:
    weights = sum(file.stat().st_size for file in Path(model).glob("*.safetensors")) if Path(model).is_dir() else 0
    free = shutil.disk_usage(output_dir).free
    if free < 2 * weights + (100 << 20):
        raise RecipeError(
            f"{output_dir} has {free >> 20:,} MiB free; a checkpoint of {model} needs about {2 * weights >> 20:,} MiB. "
            "Free some space or set output_dir"
        )


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Cold-start SFT with LLaMA-Factory.")
    parser.add_argument("recipe", help="a name in cold_start/recipes, or the path of a .yaml file")
    parser.add_argument("overrides", nargs="*", help="key=value for LLaMA-Factory keys")
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the resolved recipe, start nothing")
    options = parser.parse_args(arguments)
    try:
        recipe = load_recipe(options.recipe, tuple(options.overrides))
        output_dir = Path(recipe.llamafactory["output_dir"]).resolve()
        model = str(recipe.llamafactory["model_name_or_path"])
        _check_model(model)
        output_dir.mkdir(parents=True, exist_ok=True)
        _check_disk(output_dir, model)
        kept, problems = prepare_data(
            recipe.cold_start,
            output_dir / "data",
            cutoff_len=int(recipe.llamafactory["cutoff_len"]),
            image_max_pixels=int(recipe.llamafactory["image_max_pixels"]),
            count_tokens=_token_counter(model),
        )
    except (RecipeError, OSError) as error:
        sys.exit(f"cold start: {error}")
    settings = resolve(recipe, output_dir)
    print(f"cold start: {kept} conversations, {len(problems)} left out (see {output_dir / 'data' / 'dropped.jsonl'})")
    if settings.get("resume_from_checkpoint"):
        print(f"cold start: resuming from {settings['resume_from_checkpoint']}")
    if options.dry_run:
        print(yaml.safe_dump(settings, sort_keys=False))
        return
    resolved = output_dir / "recipe.resolved.yaml"
    resolved.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    versions = {name: importlib.metadata.version(name) for name in ("llamafactory", "transformers", "torch")}
    (output_dir / "versions.json").write_text(json.dumps(versions, indent=1), encoding="utf-8")
    sys.stdout.flush()
    command = [str(Path(sys.executable).with_name("llamafactory-cli")), "train", str(resolved)]
    os.execv(command[0], command)  # noqa: S606 - replaces this process, so a signal reaches the trainer


if __name__ == "__main__":
    main()
