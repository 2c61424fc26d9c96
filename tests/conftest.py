"""Fixtures shared by all tests. Expensive things are made once per session."""

from __future__ import annotations

import functools
import io
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from PIL import Image

from code_sandbox.command_line import CommandEnded

# Before anything imports torch or tokenizers: two cores are shared by everything.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# verl decides once in a process what it runs on, when it is first imported: by whichever test comes first.
os.environ["VERL_PLATFORM"] = "cpu"
os.environ["VERL_USE_EXTERNAL_MODULES"] = "reinforcement_learning.verl_adapter.plugin"

# Two shared cores: how long an example takes says nothing. In CI the examples are the same every time, so that a red run is
# about the change; at a desk they are drawn anew.
hypothesis.settings.register_profile("shared", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("shared")

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def no_addresses_from_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = ("CODE_SANDBOX_URL", "LLM_AS_A_JUDGE_BASE", "REDIS_URL", "QUICKSTART_RUN")
    places = ("DEEPEYES_DATA", "DEEPEYES_SFT_DATA", "DEEPEYES_RL_DATA", "DEEPEYES_SEARCH_CACHE", "DEEPEYES_SEARCH_INDEX")
    for name in (*addresses, *places):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="module")
def variables_that_a_module_sets_end_with_it() -> Iterator[None]:
    """Launchers write into the environment of their process, which here is everybody's."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def loggers_speak_whatever_a_neighbour_has_done() -> None:
    """Libraries that set up logging for a program of their own silence the loggers that are there, ours among them."""
    logging.disable(logging.NOTSET)
    logging.root.setLevel(logging.WARNING)
    for handler in logging.root.handlers:  # those of pytest, which some program has told to let errors through only
        handler.setLevel(logging.NOTSET)
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and (ROOT / logger.name.partition(".")[0] / "__init__.py").is_file():
            logger.disabled, logger.propagate = False, True
            logger.setLevel(logging.NOTSET)


def png(width: int = 8, height: int = 8, colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small toy data set with an untrained tiny model: `<toy>/data`, `<toy>/models/base`."""
    from data.tiles import write_dataset
    from deepeyes.quickstart.tiny_model import make_tiny_model

    directory = tmp_path_factory.mktemp("toy")
    write_dataset(directory / "data", num_sft=96, num_rl=32, num_benchmark=16)
    conversations = json.loads((directory / "data/sft.json").read_text())
    make_tiny_model([m["content"] for c in conversations for m in c["messages"]], directory / "models/base")
    return directory


@pytest.fixture(scope="session")
def tiny(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes tiny models of any base, tied or not, each once; `loud` ones have weights that are far from nothing.

    A new model is so near to uniform that a fault in what it computes hides in the rounding.
    """
    from deepeyes.quickstart.tiny_model import make_tiny_model

    @functools.cache
    def make(base: str, *, tied: bool = True, loud: bool = False) -> Path:
        directory = tmp_path_factory.mktemp(base) / "model"
        conversations = json.loads((toy / "data/sft.json").read_text())
        texts = [message["content"] for conversation in conversations for message in conversation["messages"]]
        make_tiny_model(texts, directory, base=base, tied=tied)
        if loud:
            _make_loud(directory)
        return directory

    return make


def _make_loud(directory: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(1)
    weights = load_file(directory / "model.safetensors")
    louder = {name: value + 0.15 * torch.randn(value.shape, generator=generator) for name, value in weights.items()}
    save_file(louder, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from serving.processes import redis_server

    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session", params=["fork", "jupyter"])
def any_sandbox_url(
    request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A server of each back-end."""
    from serving.processes import sandbox_server

    arguments = ("--backend", request.param, "--spare-kernels", "2", "--require-level", "0")
    with sandbox_server(tmp_path_factory.mktemp("sandbox"), redis_url, arguments=arguments) as url:
        yield url


@pytest.fixture(scope="session")
def sandbox_url(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from serving.processes import sandbox_server

    with sandbox_server(
        tmp_path_factory.mktemp("sandbox"), redis_url, arguments=("--spare-kernels", "2", "--require-level", "0")
    ) as url:
        yield url


def told(ended: SystemExit) -> object:
    """What a program said when it ended, or else its exit code."""
    return str(ended) if isinstance(ended, CommandEnded) else ended.code
