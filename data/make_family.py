"""`deepeyes data make FAMILY DIRECTORY`: write one family of synthetic tasks, for every stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from code_sandbox.command_line import CommandParser, program, sign_of_life
from data.families import LEVELS, family_names, load_family
from data.families._demonstrations import DirectShares
from data.families._files import Amounts, write_family


def main(arguments: Sequence[str] | None = None, prog: str = "deepeyes data make") -> None:
    """Command line."""
    amounts, shares = Amounts(), DirectShares()
    parser = CommandParser(
        prog=prog, description="Write one family of synthetic tasks: conversations, RL rows, a benchmark, what tools search."
    )
    parser.add_argument("family", choices=family_names(), help="data/README.md says what each is")
    parser.add_argument("directory", type=Path, help="where the files are written")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    parser.add_argument("--level", type=int, choices=LEVELS, default=1, help="of difficulty")
    parser.add_argument("--sft", type=int, default=amounts.sft, help="conversations of the cold start (%(default)s)")
    parser.add_argument("--rows", type=int, default=amounts.rl_train, help="RL rows (%(default)s)")
    parser.add_argument("--items", type=int, default=amounts.benchmark, help="held-out questions (%(default)s)")
    parser.add_argument(
        "--direct", type=float, default=shares.not_needed, metavar="SHARE",
        help="of demonstrations that use no tool where none is needed (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--guess", type=float, default=shares.needed, metavar="SHARE",
        help="of demonstrations that use none where one is needed, and guess (%(default)s)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    with program(prog), sign_of_life("writing"):
        write_family(
            load_family(options.family),
            options.directory,
            seed=options.seed,
            level=options.level,
            amounts=Amounts(sft=options.sft, rl_train=options.rows, benchmark=options.items),
            shares=DirectShares(not_needed=options.direct, needed=options.guess),
        )
    print(f"written to {options.directory}")


if __name__ == "__main__":
    main()
