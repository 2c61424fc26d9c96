"""A model, LLaMA-Factory's own code as the judge of ours, and a cache of verdicts that is thrown away."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cold_start.llama_factory import CATALOGUE, Pipeline, without_gpus
from cold_start.recipe import load_recipe
from tests.conftest import png

GOOD = {
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "<image>q"},
        {"role": "assistant", "content": "<think>t</think><answer>a</answer>"},
    ],
    "images": ["a.png"],
}


def changed(**edits: Any) -> dict[str, Any]:
    """`GOOD` with the user's or the assistant's text, or a whole key, replaced."""
    conversation: dict[str, Any] = json.loads(json.dumps(GOOD))
    for key, value in edits.items():
        if key in ("system", "user", "assistant"):
            conversation["messages"][("system", "user", "assistant").index(key)]["content"] = value
        else:
            conversation[key] = value
    return conversation


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DEEPEYES_CACHE", str(directory))
    return directory


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(png(56, 56))
    (tmp_path / "broken.png").write_bytes(b"oops")
    return tmp_path


@pytest.fixture(scope="session")
def large_images_model(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy model with the processor's limits of Qwen2.5-VL-7B."""
    model = tmp_path_factory.mktemp("models") / "large_images"
    shutil.copytree(toy / "models/base", model)
    config = json.loads((model / "preprocessor_config.json").read_text())
    (model / "preprocessor_config.json").write_text(json.dumps(config | {"min_pixels": 3136, "max_pixels": 12_845_056}))
    return model


def settings_for(model: Path, **more: Any) -> dict[str, Any]:
    return (
        dict(load_recipe("tiny_cpu").llamafactory)
        | {"model_name_or_path": str(model), "output_dir": str(model / "out")}
        | more
    )


@pytest.fixture(scope="session")
def pipeline(toy: Path) -> Pipeline:
    return Pipeline(settings_for(toy / "models/base"))


@pytest.fixture(scope="session")
def large_pipeline(large_images_model: Path) -> Pipeline:
    return Pipeline(settings_for(large_images_model, image_max_pixels=262_144, cutoff_len=2048))


def trained_on_by_llama_factory(copy: Path, settings: dict[str, Any], cache: Path) -> list[dict[str, Any]]:
    """What LLaMA-Factory's trainer would train on: its own `get_dataset`, which decodes and resizes every image for real."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    usable = settings | {
        "dataset": "deepeyes",
        "dataset_dir": str(copy),
        "overwrite_cache": True,
        "preprocessing_num_workers": None,
    }
    usable |= {"output_dir": str(copy / "out"), "cache_dir": str(cache / "datasets")}
    with without_gpus():
        model, data, training, *_ = get_train_args(usable)
        module = load_tokenizer(model)
        template = get_template_and_fix_tokenizer(module["tokenizer"], data)
        return list(get_dataset(template, model, data, training, stage="sft", **module)["train_dataset"])


@pytest.fixture
def llama_factory(cache: Path) -> Callable[[Path, dict[str, Any]], list[dict[str, Any]]]:
    return lambda copy, settings: trained_on_by_llama_factory(copy, settings, cache)


def write_unchecked(conversations: list[Any], directory: Path) -> Path:
    """A data set as LLaMA-Factory would be given it without any check of ours."""
    directory.mkdir()
    (directory / "deepeyes.json").write_text(json.dumps(conversations))
    (directory / "dataset_info.json").write_text(json.dumps(CATALOGUE))
    return directory
