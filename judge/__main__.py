"""Judge one answer, by rules and, if there is one, by an LLM. Ends with 0 for correct, 1 for incorrect, 2 for undecided.

deepeyes judge --question "What colour?" --gold red --answer "It is crimson."
deepeyes judge doctor       is this judge fit to judge?
deepeyes judge agreement    does it agree with people?
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from code_sandbox.redaction import redacted
from judge import agreement, doctor
from judge.client import Judge, JudgeSettings, load_judge_prompt
from judge.options import add_judge_options, judge_settings
from judge.verdict import Verdict

_ACTIONS = {"doctor": doctor.main, "agreement": agreement.main}


def main(arguments: list[str] | None = None, *, prog: str = "python -m judge") -> None:
    """Command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _ACTIONS:
        _ACTIONS[arguments[0]](arguments[1:], prog=f"{prog} {arguments[0]}")
        return
    parser = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--question", default="")
    parser.add_argument("--gold", required=True)
    parser.add_argument("--answer", required=True)
    parser.add_argument("--prompt", default="consistency", help="of judge/prompts (%(default)s)")
    add_judge_options(parser)
    options = parser.parse_args(arguments)
    try:
        load_judge_prompt(options.prompt)
        verdict = asyncio.run(_ask(judge_settings(options, prompt=options.prompt), options))
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        sys.exit(redacted(f"{prog}: {error}"))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.stdout.write(f"{verdict.outcome.value} (by {verdict.decided_by}) {verdict.reason}".rstrip() + "\n")
    sys.exit({True: 0, False: 1, None: 2}[verdict.correct])


async def _ask(settings: JudgeSettings, options: argparse.Namespace) -> Verdict:
    judge = Judge(settings)
    try:
        return await judge.judge(options.answer, options.gold, question=options.question)
    finally:
        await judge.aclose()


if __name__ == "__main__":
    main()
