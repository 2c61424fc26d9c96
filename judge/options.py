"""Who judges, as options of a command line: the same for the judge's own programs and for evaluations."""

from __future__ import annotations

import argparse
import os
from typing import Any

from judge.client import JudgeSettings
from judge.manners import SPELLINGS
from serving.urls import split_urls


def add_judge_options(parser: argparse.ArgumentParser, *, default_url: str = "") -> None:
    """`--judge-base-url`, `--judge-model` and `--judge-structured-output`; without `judge-` they are understood as well,
    where the program has no other use for that.

    Args:
        parser: Of a program.
        default_url: Without LLM_AS_A_JUDGE_BASE.
    """
    taken = {name for action in parser._actions for name in action.option_strings}

    def names(name: str) -> list[str]:
        return [f"--judge-{name}", *([f"--{name}"] if f"--{name}" not in taken else [])]

    parser.add_argument(
        *names("base-url"),
        dest="judge_base_url",
        metavar="URL",
        default=os.environ.get("LLM_AS_A_JUDGE_BASE") or default_url,
        help="of the judge's servers, with /v1, comma-separated; by default LLM_AS_A_JUDGE_BASE. Their key: JUDGE_API_KEY",
    )
    parser.add_argument(
        *names("model"),
        dest="judge_model",
        metavar="NAME",
        default="judge",
        help="by which the servers know it (%(default)s)",
    )
    parser.add_argument(
        *names("structured-output"),
        dest="judge_structured_output",
        choices=SPELLINGS,
        default="choice",
        help="how it is held to a few words: `choice` is vLLM's, `guided_choice` of vLLM before 0.12, `json_schema` "
        "OpenAI's and most others'; `deepeyes judge doctor` says what a server knows (%(default)s)",
    )


def judge_settings(options: argparse.Namespace, **more: Any) -> JudgeSettings:
    """The settings that the options ask for; without a server rules alone decide.

    Args:
        options: With those of `add_judge_options`.
        more: Other settings.
    """
    return JudgeSettings(
        base_urls=split_urls(options.judge_base_url),
        model=options.judge_model,
        structured_output=options.judge_structured_output,
        **more,
    )
