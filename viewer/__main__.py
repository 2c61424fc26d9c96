"""Shows recorded episodes in a browser, or writes them into one page.

    python -m viewer runs/quickstart/rl [--out page.html]

`deepeyes view` is the same program.
"""

from __future__ import annotations

from pathlib import Path

from code_sandbox.command_line import CommandParser, program
from viewer.app import serve
from viewer.entrance import DEFAULT_PORT
from viewer.index import find_records
from viewer.static_page import write_episodes_page


def main(arguments: list[str] | None = None, *, prog: str = "python -m viewer") -> None:
    """Command line."""
    parser = CommandParser(
        prog=prog,
        description="Look at recorded episodes in a browser.",
        examples=(
            "deepeyes view runs/quickstart/rl",
            "deepeyes view runs/with_tools runs/without         side by side",
            "deepeyes view runs/quickstart/rl --out page.html   one page, to be passed on",
        ),
    )
    parser.add_argument("directory", type=Path, nargs="+", help="a run, a folder of runs, or two side by side")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="default %(default)s; 0 is any that is free")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1; beyond loopback the link has a token")
    parser.add_argument(
        "--allowed-host", action="append", default=[], help="a name under which the page is reached; may be repeated"
    )
    parser.add_argument("--tokenizer", type=Path, help="folder of a model; by default that of the run's recipe")
    parser.add_argument("--out", type=Path, help="write one page to this file instead of serving")
    parser.add_argument("--limit", type=int, default=200, help="episodes in that file")
    options = parser.parse_args(arguments)
    with program(prog):
        if options.out:
            count = write_episodes_page(find_records(options.directory[0]), options.out, limit=options.limit)
            print(f"{count} episodes in {options.out}")
        else:
            serve(
                options.directory,
                host=options.host,
                port=options.port,
                allowed_hosts=options.allowed_host,
                tokenizer=options.tokenizer,
            )


if __name__ == "__main__":
    main()
