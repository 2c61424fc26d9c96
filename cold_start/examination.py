"""Every conversation examined, in parallel, and remembered by what it was examined with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import multiprocessing
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.files import write_whole
from cold_start.check_data import CleanConversation, clean, conversation_problems
from cold_start.llama_factory import Encoded

RULES_VERSION = 2
"""Raised when a rule changes, so that no older examination is believed."""
_CHUNK = 64
# Below this many, starting processes takes longer than the work.
_MIN_PARALLEL = 256
_DECIDING_PACKAGES = ("llamafactory", "transformers", "tokenizers", "pillow")
_TOKENIZER_FILES = ("*token*.json", "*processor*.json", "vocab.json", "merges.txt", "chat_template*", "added_tokens.json")
# These change neither what is kept nor a single token id.
_WITHOUT_EFFECT = frozenset([
    "output_dir", "logging_steps", "save_steps", "save_total_limit", "save_strategy", "save_only_model", "plot_loss",
    "overwrite_output_dir", "report_to", "run_name", "seed", "learning_rate", "num_train_epochs", "max_steps",
    "lr_scheduler_type", "warmup_ratio", "warmup_steps", "optim", "adam_beta1", "adam_beta2", "weight_decay",
    "max_grad_norm", "per_device_train_batch_size", "gradient_accumulation_steps", "deepspeed", "ddp_timeout", "bf16",
    "flash_attn", "preprocessing_num_workers", "dataloader_num_workers", "max_samples", "model_name_or_path", "use_cpu",
])  # fmt: skip


class Encoder(Protocol):
    """What has the last word on a conversation; `llama_factory.Pipeline`."""

    def encode(self, conversation: CleanConversation) -> Encoded: ...


@dataclass(frozen=True, slots=True)
class Source:
    """One data file, read."""

    path: Path
    sha256: str
    conversations: list[Any]
    images_directory: Path
    mended: tuple[str, ...] = ()
    """What is not as a strict list with images at their paths, and was read all the same."""


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found about one conversation."""

    num_tokens: int = 0
    """As LLaMA-Factory encodes it; 0 if it did not come to that."""
    reasons: tuple[str, ...] = ()
    """Why it is left out; none if it is trained on."""
    copied_pixels: int = 0
    """Of those of its images that are written anew."""


def examine(conversation: Any, images_directory: Path, encoder: Encoder) -> Examination:
    """The examination of one conversation. Nothing that it holds makes this raise."""
    try:
        if reasons := conversation_problems(conversation):
            return Examination(reasons=tuple(reasons))
        encoded = encoder.encode(clean(conversation, images_directory))
    except Exception as error:  # noqa: BLE001 - one conversation of 65,807 must not end the preparation
        return Examination(reasons=(f"it cannot be examined: {type(error).__name__}: {str(error)[:200]}",))
    return Examination(encoded.num_tokens, (encoded.problem,) if encoded.problem else (), encoded.copied_pixels)


def examine_all(sources: Sequence[Source], encoder: Encoder, num_workers: int) -> list[list[Examination]]:
    """Examinations in the order of the conversations, a list for each source.

    Workers are forked: they hold the conversations and LLaMA-Factory already. One that dies takes nothing with it: its
    conversations are examined again, fewer and fewer at a time, and the one that kills alone is left out.
    """
    tasks = [(number, at) for number, source in enumerate(sources) for at in range(0, len(source.conversations), _CHUNK)]
    if num_workers <= 1 or sum(len(source.conversations) for source in sources) < _MIN_PARALLEL:
        chunks = [_chunk(sources, encoder, *task) for task in tasks]
    else:
        chunks = _in_processes(sources, encoder, tasks, num_workers)
    examinations: list[list[Examination]] = [[] for _ in sources]
    for (number, _), chunk in zip(tasks, chunks, strict=True):
        examinations[number] += chunk
    return examinations


def _chunk(sources: Sequence[Source], encoder: Encoder, number: int, start: int, size: int = _CHUNK) -> list[Examination]:
    source = sources[number]
    return [examine(row, source.images_directory, encoder) for row in source.conversations[start : start + size]]


_FORKED: tuple[Sequence[Source], Encoder] | None = None


def _forked_chunk(task: tuple[int, int], size: int = _CHUNK) -> list[Examination]:
    assert _FORKED is not None
    return _chunk(*_FORKED, *task, size)


def _in_processes(
    sources: Sequence[Source], encoder: Encoder, tasks: Sequence[tuple[int, int]], num_workers: int
) -> list[list[Examination]]:
    global _FORKED
    _FORKED = sources, encoder
    try:
        with _pool(num_workers) as pool:
            futures = [pool.submit(_forked_chunk, task) for task in tasks]
            chunks: list[list[Examination] | None] = []
            for future in futures:
                try:
                    chunks.append(future.result())
                except BrokenProcessPool:
                    chunks.append(None)
        return [
            _in_halves(task, min(_CHUNK, len(sources[task[0]].conversations) - task[1])) if chunk is None else chunk
            for task, chunk in zip(tasks, chunks, strict=True)
        ]
    finally:
        _FORKED = None


def _in_halves(task: tuple[int, int], size: int) -> list[Examination]:
    try:
        with _pool(1) as pool:
            return pool.submit(_forked_chunk, task, size).result()
    except BrokenProcessPool:
        if size == 1:
            return [Examination(reasons=("the process that read it was killed; is an image broken or too large?",))]
        number, start = task
        return _in_halves((number, start), size // 2) + _in_halves((number, start + size // 2), size - size // 2)


def _pool(num_workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("fork"))


def fingerprint(sources: Sequence[Source], settings: Mapping[str, Any]) -> str:
    """A hash of all that examinations depend on: files, images (by path, size and time of change), settings, tokenizer."""
    digest = hashlib.sha256()
    model = Path(str(settings["model_name_or_path"]))
    facts = {
        "rules": RULES_VERSION,
        "versions": {name: importlib.metadata.version(name) for name in _DECIDING_PACKAGES},
        "settings": {key: settings[key] for key in sorted(settings) if key not in _WITHOUT_EFFECT},
        "tokenizer": _file_hashes(model) if model.is_dir() else str(model),
        "sources": [(source.path.name, source.sha256) for source in sources],
    }
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    paths = {str(source.images_directory / path) for source in sources for path in _image_paths(source.conversations)}
    ordered = sorted(paths)
    with ThreadPoolExecutor(32) as pool:  # on a network file system each question takes a round trip
        for path, state in zip(ordered, pool.map(_file_state, ordered), strict=True):
            digest.update(f"{path}\0{state}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _image_paths(conversations: Iterable[Any]) -> Iterable[str]:
    for row in conversations:
        images = row.get("images") if isinstance(row, dict) else None
        if isinstance(images, list):
            yield from (path for path in images if isinstance(path, str))


def _file_state(path: str) -> str:
    try:
        state = os.stat(path)  # noqa: PTH116 - two hundred thousand of them
    except (OSError, ValueError):
        return "missing"
    return f"{state.st_size} {state.st_mtime_ns}"


def _file_hashes(model: Path) -> dict[str, str]:
    files = {file for pattern in _TOKENIZER_FILES for file in model.glob(pattern) if file.is_file()}
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def cache_directory() -> Path:
    """Where examinations and lists of what was left out are kept: `cold_start` in DEEPEYES_CACHE, or in the user's cache."""
    if own := os.environ.get("DEEPEYES_CACHE"):
        return Path(own) / "cold_start"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deepeyes" / "cold_start"


def remembered(key: str) -> list[list[Examination]] | None:
    """Examinations that an earlier start made under this fingerprint."""
    try:
        rows = json.loads((cache_directory() / f"{key}.json").read_text(encoding="utf-8"))
        return [[Examination(**row | {"reasons": tuple(row["reasons"])}) for row in source] for source in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(key: str, examinations: Sequence[Sequence[Examination]]) -> None:
    """Keep examinations for the next start; a cache that cannot be written only costs time."""
    try:
        cache_directory().mkdir(parents=True, exist_ok=True)
        content = [[asdict(one) for one in rows] for rows in examinations]
        write_whole(cache_directory() / f"{key}.json", [json.dumps(content)])
    except OSError:
        return
