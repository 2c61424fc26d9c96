"""`bash evaluation/run_benchmarks.sh`: the published suite, and the smoke suite that brings all it needs.

Smoke: look-alikes of every format, a real sandbox, local search, and a scripted model behind real HTTP, in under three
minutes on a CPU; with `--model CHECKPOINT --cpu` a tiny model behind real vLLM instead. It shows that everything runs; its
scores mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys

from evaluation import suite
from evaluation.run import ERRORS
from evaluation.smoke.lookalikes import lookalike_names, write_lookalike
from evaluation.smoke.scripted_model import request_server, scripted_reply
from serving import processes


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    options = suite.parser().parse_args(arguments)
    try:
        sys.exit(_smoke(options) if options.suite == "smoke" else suite.main(options))
    except ERRORS as error:
        sys.exit(f"run_benchmarks: {error}")
    except processes.ProgramFailed as error:
        sys.exit(f"run_benchmarks: {error}")


def _smoke(options: argparse.Namespace) -> int:
    options.data = options.out / "data"
    # Look-alikes are not the published files, as is meant: no warning that their checksums differ.
    logging.getLogger("evaluation.runs.folder").setLevel(logging.ERROR)
    for name in lookalike_names():
        write_lookalike(name, options.data / name)
    pages = [{"title": "Colours", "text": "The colour red is the colour of stop signs.", "link": "https://example.org/red"}]
    (options.data / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages), encoding="utf-8")
    sources = options.data / "search.yaml"
    sources.write_text(
        f"search: {{provider: local, path: {options.data / 'pages.jsonl'}}}\n"
        f"image_search: {{provider: local_images, path: {options.data / 'realx'}}}\n",
        encoding="utf-8",
    )
    options.settings = [*options.settings, sources]
    if options.dry_run:
        return suite.main(options, chosen=lookalike_names())
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.marked())
        logs = options.out / "logs"
        redis_url = stack.enter_context(processes.redis_server(logs))
        arguments = ("--max-sessions", "64", "--require-level", "0")
        os.environ["CODE_SANDBOX_URL"] = stack.enter_context(processes.sandbox_server(logs, redis_url, arguments=arguments))
        if options.model is None:
            options.model = "scripted"
            options.base_url = stack.enter_context(request_server(scripted_reply, models=("scripted", "judge")))
            options.judge_base_url = options.judge_base_url or options.base_url
        return suite.main(options, chosen=lookalike_names())


if __name__ == "__main__":
    main()
