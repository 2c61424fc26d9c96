"""Make a plain Hugging Face model of a checkpoint, to serve it or to start from it.

deepeyes export RUN --out DIR [--step N] [--dtype bfloat16]

A model folder in place of a run is copied, with experts as vLLM reads them (`experts.py`).
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from code_sandbox.command_line import CommandParser, program, sign_of_life
from reinforcement_learning.checkpoints import Checkpoint, Checkpoints
from reinforcement_learning.experts import rewrite

DTYPES = ("bfloat16", "float16", "float32")


class ExportRefused(ValueError):
    """There is nothing to export, or no place for it."""


def find_checkpoint(run: Path, step: int | None) -> Checkpoint:
    """A complete checkpoint of a run.

    Args:
        run: The run's folder.
        step: None for the newest.

    Raises:
        ExportRefused: There is none; the message lists those that are there.
    """
    found = Checkpoints(run / "checkpoints").complete()
    if not found:
        raise ExportRefused(
            f"no complete checkpoint in {run / 'checkpoints'}; expected the folder of an RL run (run.directory)"
        )
    if step is None:
        return found[-1]
    for checkpoint in found:
        if checkpoint.step == step:
            return checkpoint
    raise ExportRefused(
        f"no complete checkpoint of step {step} in {run}; there are: {', '.join(str(c.step) for c in found)}"
    )


def export(run: Path, out: Path, *, step: int | None = None, dtype: str = "bfloat16") -> str:
    """Write the model of a checkpoint with all that serving needs.

    Args:
        run: The run's folder, or that of a model whose experts are to be as vLLM reads them.
        out: A new folder; it is there as a whole or not at all.
        step: None for the newest.
        dtype: Of the weights, one of `DTYPES`. Training keeps 32 bits; models are served in bfloat16.

    Returns:
        What was done.

    Raises:
        ExportRefused: No such checkpoint, or `out` holds something.
        ValueError: The checkpoint is not what its configuration says.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportRefused(f"{out} is there already and not empty; choose a new folder")
    is_model = (run / "config.json").is_file()
    checkpoint = None if is_model else find_checkpoint(run, step)
    # Quick on a laptop as well: no look at the hub for files that are all here.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if checkpoint is None:
        told = f"{rewrite(run, partial)} tensors of {run}"
    else:
        from reinforcement_learning.verl_adapter.merge import write_model

        tensors = write_model(checkpoint.path / "actor", partial, dtype)
        told = f"{tensors} tensors in {dtype} of step {checkpoint.step}, {checkpoint.path}"
    if out.exists():
        out.rmdir()
    partial.rename(out)
    return f"{out}: {told}"


def main(arguments: list[str] | None = None, *, prog: str = "python -m reinforcement_learning.export") -> None:
    """Command line."""
    parser = CommandParser(
        prog=prog,
        description="A plain Hugging Face model of a checkpoint.",
        examples=(
            "deepeyes export runs/rl --out models/rl",
            "deepeyes export runs/vstar --to vlmevalkit --out predictions     of an evaluation; `--to vlmevalkit --help`",
        ),
    )
    parser.add_argument("run", type=Path, help="the folder of an RL run, or of a model whose experts vLLM is to read")
    parser.add_argument("--out", type=Path, required=True, help="a new folder for the model")
    parser.add_argument("--step", type=int, help="the newest by default")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the weights; bfloat16 by default")
    options = parser.parse_args(arguments)
    with program(prog), sign_of_life("merging the checkpoint"):
        sys.stdout.write(export(options.run, options.out, step=options.step, dtype=options.dtype) + "\n")


if __name__ == "__main__":
    main()
