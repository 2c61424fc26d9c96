"""Everything that can be known before a cold start, looked at without starting anything; a failing check hides no other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.checks import Check
from agent.images import ImageRule
from agent.recipes import RecipeError, shared_value
from cold_start import machine
from cold_start.checkpoints import is_finished, latest_checkpoint
from cold_start.examination import cache_directory, fingerprint
from cold_start.images import COPY_BYTES_A_PIXEL
from cold_start.launch import Launch, batch_hint, plan_launch
from cold_start.llama_factory import Pipeline, argument_problems
from cold_start.prepare_data import (
    Examined,
    check_usable,
    content_sha256,
    examine_data,
    prepared_copy,
    read_sources,
    write_dropped,
)
from cold_start.recipe import Recipe
from cold_start.run_state import RunFacts, differences


@dataclass(slots=True)
class Report:
    """What was looked at, and what was found out on the way."""

    checks: list[Check] = field(default_factory=list)
    launch: Launch | None = None
    examined: Examined | None = None
    rule: ImageRule | None = None
    """What the model sees of an image."""
    facts: RunFacts | None = None
    changes: list[str] = field(default_factory=list)
    """In what a run that is there differs from this recipe."""

    @property
    def failures(self) -> list[Check]:
        """Checks that failed."""
        return [check for check in self.checks if not check.ok]

    def attempt(self, name: str, check: Callable[[], str]) -> bool:
        """Add a check; what it raises is its failure."""
        try:
            self.checks.append(Check(name, True, check()))
        except (RecipeError, OSError, ValueError, TypeError, LookupError) as error:
            self.checks.append(Check(name, False, str(error)))
        return self.checks[-1].ok


def finished_as_asked(recipe: Recipe, output_dir: Path) -> bool:
    """Whether the run is over and was the one that the recipe describes, seen without asking LLaMA-Factory.

    Data that is no longer there is taken for what was trained on.
    """
    settings = recipe.llamafactory
    if not is_finished(output_dir) or differences(output_dir, settings, None):
        return False
    try:
        key = fingerprint(read_sources(recipe.cold_start), _with_local_model(settings))
    except RecipeError:
        return True
    prepared = prepared_copy(output_dir / "data")
    return prepared is not None and prepared.fingerprint == key


def check_recipe(recipe: Recipe, output_dir: Path, environ: Mapping[str, str], *, accept_changes: bool = False) -> Report:
    """Look at everything.

    Args:
        recipe: With overrides.
        output_dir: Of the run; it may be there, and is not made.
        environ: FORCE_TORCHRUN and the variables of several nodes.
        accept_changes: Go on with a run that was started with another recipe or other data.
    """
    settings, report = recipe.llamafactory, Report()
    num_gpus = machine.count_gpus()
    problems = argument_problems(settings)
    report.checks += [Check("arguments", False, problem) for problem in problems]
    if not problems:
        report.checks.append(Check("arguments", True, f"LLaMA-Factory takes all {len(settings)}"))
    model = str(settings["model_name_or_path"])
    has_model = report.attempt("model", lambda: machine.check_model(model, str(settings["template"])))
    report.attempt("deepspeed", lambda: machine.check_deepspeed(settings))
    report.attempt("attention", lambda: machine.check_attention(settings))
    if report.attempt("start", lambda: _plan(report, settings, environ, num_gpus)):
        assert report.launch is not None
        launch = report.launch
        report.attempt("GPUs", lambda: machine.check_gpus(settings, launch, num_gpus))
        report.attempt("batch", lambda: batch_hint(settings, launch, recipe.cold_start.batch_size))
    report.checks.append(Check("checkpoints", True, machine.describe_rotation(settings)))
    report.attempt("logging", lambda: machine.check_logger(settings))
    report.attempt("data", lambda: _data(report, recipe, output_dir, usable=has_model and not problems))
    report.attempt("disk", lambda: _disk(report, settings, output_dir))
    report.attempt("run", lambda: _run(report, settings, output_dir, accept_changes))
    return report


def _plan(report: Report, settings: Mapping[str, Any], environ: Mapping[str, str], num_gpus: int) -> str:
    report.launch = launch = plan_launch(settings, environ, num_gpus)
    how = "through torchrun" if launch.torchrun else "in one process"
    rank = f", this is node {launch.node_rank}; output_dir must lie on a disk that all share" if launch.num_nodes > 1 else ""
    return f"{how}: {launch.num_nodes} nodes x {launch.processes_per_node} processes{rank}"


def _with_local_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the model's folder in the place of a hub's name, so that looking at it asks no network."""
    folder = machine.model_folder(str(settings["model_name_or_path"]))
    return dict(settings) | ({"model_name_or_path": str(folder)} if folder else {})


def _data(report: Report, recipe: Recipe, output_dir: Path, *, usable: bool) -> str:
    settings = _with_local_model(recipe.llamafactory)
    if not usable:
        num = sum(len(source.conversations) for source in read_sources(recipe.cold_start))
        return f"{num:,} conversations, not looked at: that takes a model's tokenizer and settings that LLaMA-Factory takes"
    pipelines: list[Pipeline] = []

    def load() -> Pipeline:
        if not pipelines:
            pipelines.append(Pipeline(settings))
        return pipelines[0]

    pipeline = load()
    num_workers = len(os.sched_getaffinity(0))
    report.rule = pipeline.rule
    report.attempt("images", lambda: _images(pipeline.rule))
    examined = examine_data(recipe.cold_start, settings, load_encoder=load, num_workers=num_workers)
    dropped = cache_directory() / f"{examined.fingerprint}.dropped.jsonl"
    problems = examined.problems
    if problems:
        try:
            write_dropped(problems, dropped)
        except OSError:  # a home that nobody may write to: the start writes the list beside the copy
            dropped = output_dir / "data" / "dropped.jsonl (at the start)"
    check_usable(examined, recipe.cold_start.on_bad, dropped)
    report.examined = examined
    tokens = examined.num_tokens
    if report.launch is not None:
        report.facts = RunFacts(content_sha256(examined), len(tokens), report.launch.num_processes)
    left_out = f"{len(problems):,} left out, listed in {dropped}" if problems else "none left out"
    escaped = sum(conversation.num_escaped for conversation in examined.kept())
    more = f"; special tokens escaped in {escaped:,} messages" if escaped else ""
    more += "".join(f"; {line}" for line in mended_lines(examined))
    return (
        f"{trained_on(len(tokens), settings)}, {left_out}; the longest has {max(tokens):,} of {settings['cutoff_len']:,} "
        f"tokens{more}"
    )


def mended_lines(examined: Examined) -> list[str]:
    """What was read although it is not as it should be, a line a file."""
    return [
        f"{source.path.name} was not prepared, and is read all the same: it has {', '.join(source.mended)}"
        for source in examined.sources
        if source.mended
    ]


def trained_on(num_conversations: int, settings: Mapping[str, Any]) -> str:
    """How many conversations are trained on, `max_samples` included."""
    limit = settings.get("max_samples")
    if limit and int(limit) < num_conversations:
        return f"{num_conversations:,} conversations, of which max_samples trains on the first {int(limit):,}"
    return f"{num_conversations:,} conversations"


def _images(rule: ImageRule) -> str:
    shared = int(shared_value("image_max_pixels"))
    return f"{rule}; agent/shared.yaml, which RL and evaluation go by, says {shared:,} pixels"


def _disk(report: Report, settings: Mapping[str, Any], output_dir: Path) -> str:
    folder = machine.model_folder(str(settings["model_name_or_path"]))
    size = machine.model_size(folder, settings) if folder and list(folder.glob("*.safetensors")) else None
    steps = None
    if report.facts is not None and report.launch is not None:
        used = min(report.facts.num_conversations, int(settings.get("max_samples") or report.facts.num_conversations))
        steps = machine.num_steps(used, settings, report.launch)
    copies = 0
    if report.examined is not None and prepared_copy(output_dir / "data") is None:
        copies = round(report.examined.copied_pixels * COPY_BYTES_A_PIXEL)
    text = machine.check_disk(output_dir, size, settings, steps, copies=copies)
    return f"{text}; {steps:,} steps" if steps else text


def _run(report: Report, settings: Mapping[str, Any], output_dir: Path, accept_changes: bool) -> str:
    report.changes = differences(output_dir, settings, report.facts)
    if report.changes and not accept_changes:
        raise RecipeError(
            f"{output_dir} holds a run that differs from what is asked for: {'; '.join(report.changes)}. output_dir=… "
            "starts another run; --accept-changes (ACCEPT_CHANGES=1) goes on with this one deliberately"
        )
    checkpoint = latest_checkpoint(output_dir, with_optimizer=not settings.get("save_only_model", False))
    changed = f" with changes ({'; '.join(report.changes)})" if report.changes else ""
    return f"goes on from {checkpoint.name}{changed}" if checkpoint else f"a new one in {output_dir}{changed}"
