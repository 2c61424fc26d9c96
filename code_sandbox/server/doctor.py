"""Measures which isolation sessions would have on this machine, and says what is missing; it needs no server and no Redis.

    python -m code_sandbox.server.doctor

`deepeyes sandbox doctor` is the same program.
"""

from __future__ import annotations

import asyncio
import sys

from code_sandbox.command_line import CommandParser, add_json_option, print_json, program, sign_of_life
from code_sandbox.server import fonts
from code_sandbox.server.serving import measure_here
from code_sandbox.server.settings import ServerSettings, load_settings


def main(arguments: list[str] | None = None, *, prog: str = "python -m code_sandbox.server.doctor") -> None:
    """Command line; it ends with 1 where cells could do everything."""
    parser = CommandParser(
        prog=prog,
        description="Say which isolation this machine allows, and what is missing.",
        examples=("deepeyes sandbox doctor", "deepeyes sandbox doctor --without landlock --json"),
    )
    parser.add_argument("--without", action="append", default=[], help="leave a layer out")
    parser.add_argument("--cgroup", action="append", default=[], help="a control group set aside for sandboxes")
    add_json_option(parser)
    options = parser.parse_args(arguments)
    with program(prog), sign_of_life("measuring"):
        sys.exit(report(load_settings(None, {"without": options.without, "cgroups": options.cgroup}), as_json=options.json))


def report(settings: ServerSettings, *, as_json: bool = False) -> int:
    """Measure, and write what came of it.

    Returns:
        1 if nothing is refused to cells.

    Raises:
        KernelStartFailed: Sessions cannot be started.
    """
    isolation = asyncio.run(measure_here(settings))
    if as_json:
        print_json(isolation.model_dump())
        return int(isolation.level == 0)
    lines = [
        f"isolation level {isolation.level} ({isolation.name}), through {', '.join(isolation.layers) or 'limits only'}",
        f"cells cannot: {', '.join(isolation.refused) or 'nothing'}",
        *(f"cells CAN:    {attempt}" for attempt in isolation.allowed),
        *(f"missing:      {layer}: {reason}" for layer, reason in isolation.missing.items()),
        f"CJK font:     {font.name if (font := fonts.found()) is not None else fonts.ADVICE}",
    ]
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return int(isolation.level == 0)


if __name__ == "__main__":
    main()
