"""`deepeyes sandbox attack`: one line an attempt, a table, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence

from code_sandbox.attacks import suite
from code_sandbox.attacks.suite import Outcome
from code_sandbox.client import SandboxClient
from code_sandbox.errors import SandboxError


async def report(url: str, names: Sequence[str], level: int | None) -> int:
    """Attack a server and print what held.

    Returns:
        1 if an attempt succeeded that the level must refuse.

    Raises:
        LookupError: An attack's name is unknown.
        RuntimeError: The server does not answer.
    """
    outcomes: list[Outcome] = []
    try:
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
    except SandboxError as error:
        raise RuntimeError(str(error)) from error
    failed = [outcome for outcome in outcomes if outcome.wrong and outcome.level <= level]
    below = [outcome for outcome in outcomes if outcome.wrong and outcome.level > level]
    print(f"\n{len(outcomes)} attempts: {len(outcomes) - len(failed) - len(below)} held, {len(failed)} did not", end="")
    print(f", {len(below)} would need a higher level of isolation" if below else "")
    return int(bool(failed))


def row(outcome: Outcome, level: int) -> str:
    """A line of the table."""
    verdict = "held"
    if outcome.wrong:
        what = "FAILED" if outcome.level <= level else f"needs level {outcome.level}"
        verdict = f"**{what}**: {outcome.wrong}".replace("|", "/").replace("\n", " ")
    return f"| {outcome.attack} | {outcome.attempt} | {outcome.reported} | {verdict} |"
