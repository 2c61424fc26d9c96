"""Starts one sandbox server and runs it until it is told to end.

    python -m code_sandbox.server --port 8000 [--config code_sandbox/deploy/sandbox.yaml]

`deepeyes sandbox serve` is the same program.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from code_sandbox.command_line import end_with
from code_sandbox.server.serving import serve
from code_sandbox.server.settings import BACKENDS, LOG_LEVELS, load_settings


def main(arguments: list[str] | None = None, *, prog: str = "python -m code_sandbox.server") -> None:
    """Command line."""
    # Every option but --config is called as the setting that it sets.
    given = {name: value for name, value in vars(_parser(prog).parse_args(arguments)).items() if value is not None}
    config = given.pop("config", None)
    end_with(prog, lambda: serve(load_settings(config, given)))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Start a sandbox server.")
    parser.add_argument("--config", type=Path, help="YAML with names of settings.py; options go above it")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--uds", help="path of a Unix socket to listen on instead")
    parser.add_argument(
        "--allowed-host", action="append", dest="allowed_hosts", help="a name of this server besides localhost"
    )
    parser.add_argument("--redis-url", default=os.environ.get("REDIS_URL"))
    parser.add_argument("--backend", choices=BACKENDS)
    parser.add_argument("--max-sessions", type=int)
    parser.add_argument("--spare-kernels", type=int, help="kept ready for sessions to come")
    parser.add_argument("--require-level", type=int, choices=(0, 1, 2, 3), help="refuse to start with less isolation")
    parser.add_argument("--without", action="append", help="leave a layer of isolation out, to compare; may be repeated")
    parser.add_argument("--cgroup", action="append", dest="cgroups", help="a control group set aside for this server")
    parser.add_argument("--lease-s", type=float)
    parser.add_argument("--log-level", choices=LOG_LEVELS)
    parser.add_argument("--log-code", action="store_true", default=None, help="write every cell's code into the log")
    return parser


if __name__ == "__main__":
    main()
