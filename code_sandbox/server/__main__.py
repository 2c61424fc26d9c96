"""Starts one sandbox server and runs it until it is told to end.

    python -m code_sandbox.server --port 8000 [--config code_sandbox/deploy/sandbox.yaml]

`deepeyes sandbox serve` is the same program.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from code_sandbox.command_line import CommandParser, program
from code_sandbox.server.serving import serve
from code_sandbox.server.settings import BACKENDS, LOG_LEVELS, ServerSettings, load_settings

_DEFAULTS = ServerSettings()


def main(arguments: list[str] | None = None, *, prog: str = "python -m code_sandbox.server") -> None:
    """Command line."""
    # Every option but --config is called as the setting that it sets.
    given = {name: value for name, value in vars(_parser(prog).parse_args(arguments)).items() if value is not None}
    config = given.pop("config", None)
    with program(prog):
        serve(load_settings(config, given))


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=prog,
        description="Start a sandbox server.",
        examples=("deepeyes sandbox serve", "deepeyes sandbox serve --port 8100 --max-sessions 64 --require-level 2"),
    )

    def add(name: str, text: str, **options: Any) -> None:
        # Not given is not the default: a file of settings stands between the two.
        setting = options.get("dest", name.replace("-", "_"))
        parser.add_argument(f"--{name}", help=f"{text} (default: {getattr(_DEFAULTS, setting)})", **options)

    parser.add_argument("--config", type=Path, help="YAML with names of settings.py; options go above it")
    add("host", "address to listen on; beyond loopback CODE_SANDBOX_TOKEN must be set")
    add("port", "to listen on", type=int)
    parser.add_argument("--uds", help="path of a Unix socket to listen on instead")
    parser.add_argument(
        "--allowed-host", action="append", dest="allowed_hosts", help="a name of this server besides localhost"
    )
    add("redis-url", "of the registry; REDIS_URL, if it is set", default=os.environ.get("REDIS_URL"))
    add("backend", "`fork` has IPython in forked processes, `jupyter` Jupyter kernels", choices=BACKENDS)
    add("max-sessions", "at once; one more is refused", type=int)
    add("spare-kernels", "sessions kept ready for those to come", type=int)
    add("require-level", "refuse to start with less isolation", type=int, choices=(0, 1, 2, 3))
    parser.add_argument("--without", action="append", help="leave a layer of isolation out, to compare; may be repeated")
    parser.add_argument("--cgroup", action="append", dest="cgroups", help="a control group set aside for this server")
    add("lease-s", "seconds without a call after which a session is closed", type=float)
    add("log-level", "least that is logged", choices=LOG_LEVELS)
    parser.add_argument("--log-code", action="store_true", default=None, help="write every cell's code into the log")
    return parser


if __name__ == "__main__":
    main()
