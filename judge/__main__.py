"""Judge one answer, by rules and, if there is one, by an LLM.

Ends with 0 for correct, 1 for incorrect, 3 for undecided, 4 if no judge answered.

    deepeyes judge --question "What colour?" --gold red --answer "It is crimson."
    deepeyes judge doctor       is this judge fit to judge?
    deepeyes judge agreement    does it agree with people?
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from dataclasses import asdict

from code_sandbox.command_line import FAILED, NOT_SCORED, OUTAGE, CommandParser, add_json_option, print_json, program
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
    parser = CommandParser(prog=prog, description=__doc__)
    parser.add_argument("action", nargs="?", choices=tuple(_ACTIONS), help="look at the judge instead; has its own --help")
    parser.add_argument("--question", default="", help="that was asked, for an LLM")
    parser.add_argument("--gold", required=True, help="the right answer")
    parser.add_argument("--answer", required=True, help="what is judged")
    parser.add_argument("--prompt", default="consistency", help="of judge/prompts (%(default)s)")
    add_judge_options(parser)
    add_json_option(parser)
    options = parser.parse_args(arguments)
    with program(prog):
        load_judge_prompt(options.prompt)
        verdict = asyncio.run(_ask(judge_settings(options, prompt=options.prompt), options))
    if options.json:
        print_json(asdict(verdict))
    else:
        sys.stdout.write(f"{verdict.outcome.value} (by {verdict.decided_by}) {verdict.reason}".rstrip() + "\n")
    sys.exit(OUTAGE if verdict.outage else {True: 0, False: FAILED, None: NOT_SCORED}[verdict.correct])


async def _ask(settings: JudgeSettings, options: argparse.Namespace) -> Verdict:
    judge = Judge(settings)
    try:
        return await judge.judge(options.answer, options.gold, question=options.question)
    finally:
        await judge.aclose()


if __name__ == "__main__":
    main()
