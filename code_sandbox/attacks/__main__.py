"""Attacks a sandbox server that is yours, and says what held: one line an attempt, a table, and a verdict.

    python -m code_sandbox.attacks [a01_fork_bomb …] --url http://127.0.0.1:8000

`deepeyes sandbox attack` is the same program.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from code_sandbox.attacks import suite
from code_sandbox.attacks.suite import AttackOutcome
from code_sandbox.client import SandboxClient
from code_sandbox.command_line import CommandParser, program


def main(arguments: list[str] | None = None, *, prog: str = "python -m code_sandbox.attacks") -> None:
    """Command line."""
    parser = CommandParser(
        prog=prog,
        description="Attack a server that is yours, and see what holds.",
        examples=("deepeyes sandbox attack a01_fork_bomb --url http://127.0.0.1:8000",),
    )
    parser.add_argument("name", nargs="*", help="of attacks in code_sandbox/attacks; all by default")
    parser.add_argument("--url", default=os.environ.get("CODE_SANDBOX_URL", "http://127.0.0.1:8000"), help="of the server")
    parser.add_argument("--level", type=int, choices=(0, 1, 2, 3), help="to hold it to; by default what it says it reached")
    options = parser.parse_args(arguments)
    with program(prog):
        sys.exit(asyncio.run(report(options.url, options.name, options.level)))


async def report(url: str, names: Sequence[str], level: int | None) -> int:
    """Attack a server and print what held.

    Returns:
        1 if an attempt succeeded that the level must refuse.

    Raises:
        LookupError: An attack's name is unknown.
        SandboxUnavailable: The server does not answer.
    """
    outcomes: list[AttackOutcome] = []
    if url.endswith(suite.LEGACY_ROUTES):
        level = 1 if level is None else level
    elif level is None:
        async with SandboxClient(url) as client:
            (state,) = await client.health()
        level = state.isolation.level
        print(f"{url}: back-end {state.backend}, isolation level {level} ({state.isolation.name})\n")
    print("| attack | attempt | reported as | outcome |\n| --- | --- | --- | --- |", flush=True)
    async for outcome in suite.run(url, names, level=level):
        outcomes.append(outcome)
        print(row(outcome, level), flush=True)
    failed = [outcome for outcome in outcomes if outcome.wrong and outcome.level <= level]
    below = [outcome for outcome in outcomes if outcome.wrong and outcome.level > level]
    print(f"\n{len(outcomes)} attempts: {len(outcomes) - len(failed) - len(below)} held, {len(failed)} did not", end="")
    print(f", {len(below)} would need a higher level of isolation" if below else "")
    return int(bool(failed))


def row(outcome: AttackOutcome, level: int) -> str:
    """A line of the table."""
    verdict = "held"
    if outcome.wrong:
        what = "FAILED" if outcome.level <= level else f"needs level {outcome.level}"
        verdict = f"**{what}**: {outcome.wrong}".replace("|", "/").replace("\n", " ")
    return f"| {outcome.attack} | {outcome.attempt} | {outcome.reported} | {verdict} |"


if __name__ == "__main__":
    main()
