"""Run a curation, or show what it did.

    deepeyes curate run FILE.yaml [--workers 4|ray]
    deepeyes curate report FILE.yaml|FOLDER [--out report.html]

`run` goes on where it was, however it ended, and skips what is done; started several times at once the processes share what
is left to ask. curation/README.md has the steps and their settings.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from code_sandbox.command_line import CommandParser, program, sign_of_life
from curation.errors import CurationError
from curation.images import Workers
from curation.report import write_report
from curation.settings import read_curation
from curation.work import run_steps


def main(arguments: list[str] | None = None, *, prog: str = "python -m curation.run") -> None:
    """Command line."""
    parser = CommandParser(prog=prog, description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="run|report")
    run = actions.add_parser("run", help="run the steps that are not done yet")
    run.add_argument("file", type=Path, help="the steps, as YAML")
    run.add_argument(
        "--workers",
        type=_workers,
        default=min(8, os.cpu_count() or 1),
        metavar="N|ray",
        help="processes that decode images (%(default)s), or `ray`: the cluster of RAY_ADDRESS",
    )
    report = actions.add_parser("report", help="write a page of what each step kept and dropped")
    report.add_argument("run", type=Path, help="the run's folder, or the YAML file")
    report.add_argument("--out", type=Path, help="by default report.html in the run's folder")
    report.add_argument("--examples", type=int, default=3, help="shown of each reason (%(default)s)")
    options = parser.parse_args(arguments)
    with program(prog, note="what was done is kept, and the same command goes on"):
        if options.action == "run":
            _run(options)
        else:
            folder = options.run if options.run.is_dir() else read_curation(options.run).directory
            path = write_report(folder, options.out, examples=options.examples)
            sys.stdout.write(f"{path}\n")


def _workers(given: str) -> Workers:
    if given != "ray" and not given.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number or `ray`, not {given!r}")
    return "ray" if given == "ray" else int(given)


def _run(options: argparse.Namespace) -> None:
    curation = read_curation(options.file)
    if options.workers != "ray" and options.workers < 1:
        raise CurationError(f"--workers is {options.workers}; expected at least 1, or `ray`")
    said = ["nothing is done yet"]

    def say(line: str) -> None:
        said[0] = line
        print(line, flush=True)

    with sign_of_life(lambda: f"after «{said[0]}» the next step is under way"):
        asyncio.run(run_steps(curation, workers=options.workers, say=say))
    write_report(curation.directory, None)
    print(f"{curation.directory / 'report.html'} shows what each step kept and dropped")


if __name__ == "__main__":
    main()
