"""Check and prepare everything, then hand over to `llamafactory-cli train`.

python -m cold_start.train [RECIPE] [key=value …] [--dry-run] [--show-recipe] [--accept-changes]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from agent.checks import Check
from agent.files import write_whole
from agent.options import add_recipe, take_recipe
from code_sandbox.command_line import FAILED, MISTAKE, CommandParser, end, program, sign_of_life
from code_sandbox.redaction import redacted
from cold_start.checkpoints import is_finished, latest_checkpoint, set_aside_incomplete
from cold_start.checks import Report, check_recipe, finished_as_asked, mended_lines, trained_on
from cold_start.launch import launch_environment
from cold_start.llama_factory import DATASET
from cold_start.prepare_data import write_copy
from cold_start.recipe import Recipe, load_recipe
from cold_start.run_state import record

DEFAULT_RECIPE = "qwen2_5_vl_7b"
_PROGRAM = "run_cold_start.sh"
_LAUNCH_FILE = "recipe.launch.yaml"
_WIDTH = 12


def resolve(recipe: Recipe, output_dir: Path, *, resume: bool = True) -> dict[str, Any]:
    """LLaMA-Factory's settings with the data set filled in and, if there is a checkpoint, resuming from it.

    Args:
        recipe: With overrides.
        output_dir: Of the run.
        resume: False leaves resuming out.
    """
    settings = dict(recipe.llamafactory)
    settings |= {
        "dataset": DATASET,
        "dataset_dir": str(output_dir / "data"),
        "output_dir": str(output_dir),
        "overwrite_cache": True,
        # LLaMA-Factory would look for a checkpoint by itself, and take one that was not written to its end.
        "overwrite_output_dir": True,
    }
    checkpoint = latest_checkpoint(output_dir, with_optimizer=not settings.get("save_only_model", False)) if resume else None
    if checkpoint is not None:
        settings["resume_from_checkpoint"] = str(checkpoint)
        settings["overwrite_output_dir"] = False
        if settings.get("finetuning_type") == "full":
            # Resuming alone would load the weights under names that no longer match and silently start the language model
            # afresh (transformers issue 43701); reading the model itself from the checkpoint loads them all.
            settings["model_name_or_path"] = str(checkpoint)
    return settings


def main(arguments: list[str] | None = None, *, prog: str = _PROGRAM) -> None:
    """Command line."""
    options = _parse(arguments, prog)
    with program(prog, note="nothing was started"):
        _run(options)


def _run(options: argparse.Namespace) -> None:
    try:
        recipe = load_recipe(options.recipe, tuple(options.overrides))
        output_dir = Path(recipe.llamafactory["output_dir"]).resolve()
        if not options.accept_changes and finished_as_asked(recipe, output_dir):
            _say_finished(output_dir)
            return
        with sign_of_life("looking at what the cold start needs"):
            report = check_recipe(recipe, output_dir, os.environ, accept_changes=options.accept_changes)
    except ImportError as error:
        how = "pip install 'deepeyes[sft]', or `bash scripts/setup.sh` in a checkout"
        end(MISTAKE, f"cold start: LLaMA-Factory cannot be imported ({error}): {how}")
    if options.show_recipe:
        print(yaml.safe_dump(redacted(resolve(recipe, output_dir)), sort_keys=False))
    if options.dry_run:
        print(redacted("\n".join(_line(check) for check in report.checks)))
    if report.failures:
        failures = "" if options.dry_run else redacted("\n".join(_line(check) for check in report.failures)) + "\n"
        counts = f"{len(report.failures)} of {len(report.checks)} checks failed"
        end(FAILED, f"{failures}cold start: not ready, {counts}; nothing was started")
    if is_finished(output_dir) and not report.changes:
        _say_finished(output_dir)
    elif options.dry_run:
        print("cold start: ready; nothing was started")
    else:
        with sign_of_life("preparing the training data"):
            command, env = _prepared(recipe, output_dir, report)
        # Replaces this process, so that a signal reaches the trainer.
        os.execve(command[0], command, env)  # noqa: S606


def _parse(arguments: list[str] | None, prog: str = _PROGRAM) -> argparse.Namespace:
    parser = CommandParser(
        prog=prog,
        description="Cold-start SFT with LLaMA-Factory. The same command goes on from the newest checkpoint.",
        examples=(
            "deepeyes sft qwen2_5_vl_7b --dry-run",
            "deepeyes sft qwen2_5_vl_7b learning_rate=1e-5 output_dir=runs/sft",
        ),
    )
    add_recipe(parser, "cold_start/recipes", default=DEFAULT_RECIPE, settings="LLaMA-Factory's")
    parser.add_argument("--dry-run", action="store_true", help="check everything, start and write nothing")
    parser.add_argument("--show-recipe", action="store_true", help="print what LLaMA-Factory is given, as YAML")
    parser.add_argument(
        "--accept-changes", action="store_true", help="go on with a run that had another recipe or other data"
    )
    options = parser.parse_intermixed_args(arguments)
    take_recipe(parser, options, default=DEFAULT_RECIPE)
    return options


def _line(check: Check) -> str:
    text = check.message.replace("\n", f"\n        {'':{_WIDTH}}")
    return f"  {'ok  ' if check.ok else 'FAIL'}  {check.name:{_WIDTH}}{text}"


def _say_finished(output_dir: Path) -> None:
    print(f"cold start: {output_dir} is finished and was trained with this recipe; nothing to do")


def _prepared(recipe: Recipe, output_dir: Path, report: Report) -> tuple[list[str], dict[str, str]]:
    """Write what the trainer reads; (command, environment) of the trainer."""
    launch, examined, facts = report.launch, report.examined, report.facts
    assert launch is not None
    assert examined is not None
    assert facts is not None
    assert report.rule is not None
    output_dir.mkdir(parents=True, exist_ok=True)
    prepared = write_copy(examined, output_dir / "data", report.rule)
    settings = resolve(recipe, output_dir)
    checkpoint = settings.get("resume_from_checkpoint")
    # Nodes that share the disk write the same files; what is moved is moved by the first.
    if launch.node_rank == 0:
        for path in set_aside_incomplete(output_dir, newer_than=Path(checkpoint) if checkpoint else None):
            print(f"cold start: {path.name} was not written to its end; it can be deleted")
        # It says that a run is finished, and is written again when this one is.
        (output_dir / "trainer_state.json").unlink(missing_ok=True)
    record(output_dir, resolve(recipe, output_dir, resume=False), facts)
    write_whole(output_dir / _LAUNCH_FILE, [yaml.safe_dump(settings, sort_keys=False)], durable=True)
    versions = {name: importlib.metadata.version(name) for name in ("llamafactory", "transformers", "torch")}
    write_whole(output_dir / "versions.json", [json.dumps(versions, indent=1)], durable=True)
    dropped = f"{prepared.num_left_out:,} left out (see {output_dir / 'data' / 'dropped.jsonl'})"
    copied = f"{prepared.num_images:,} images written as the model sees them"
    for line in mended_lines(examined):
        print(f"cold start: {line}")
    print(f"cold start: {trained_on(prepared.num_kept, settings)}, {dropped}; {copied}")
    if checkpoint:
        print(f"cold start: resuming from {checkpoint}")
    sys.stdout.flush()
    command = [str(Path(sys.executable).with_name("llamafactory-cli")), "train", str(output_dir / _LAUNCH_FILE)]
    return command, launch_environment(launch, os.environ)


if __name__ == "__main__":
    main()
