"""`bash evaluation/run_benchmarks.sh`: the published suite, and the smoke suite that brings all it needs.

Smoke: look-alikes of every format, a real sandbox, local search, and a scripted model behind real HTTP, in under three
minutes on a CPU; with `--model CHECKPOINT --cpu` a tiny model behind real vLLM instead. The script judges too, unless a
judge is named. It shows that everything runs; its scores mean nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from dataclasses import replace

from code_sandbox.command_line import program
from evaluation import suite
from evaluation.smoke.lookalikes import lookalike_names, write_lookalike
from evaluation.smoke.scripted_model import request_server, scripted_reply
from evaluation.suite import SuiteOptions
from serving import processes


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    with program("run_benchmarks.sh", note="what was answered is kept, and the same command resumes"):
        options = suite.parse(arguments)
        sys.exit(_smoke(options) if options.suite == "smoke" else suite.run_suite(options))


def _smoke(options: SuiteOptions) -> int:
    data = options.out / "data"
    # Look-alikes are not the published files, as is meant: no warning that their checksums differ.
    logging.getLogger("evaluation.runs.folder").setLevel(logging.ERROR)
    for name in lookalike_names():
        write_lookalike(name, data / name)
    pages = [{"title": "Colours", "text": "The colour red is the colour of stop signs.", "link": "https://example.org/red"}]
    (data / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages), encoding="utf-8")
    sources = {
        "search": {"provider": "local", "path": str(data / "pages.jsonl")},
        "image_search": {"provider": "local_images", "path": str(data / "realx")},
    }
    asked = replace(options.asked, given={**sources, **options.asked.given})
    options = replace(options, data=data, benchmarks=options.benchmarks or tuple(lookalike_names()), asked=asked)
    if options.dry_run:
        return suite.run_suite(options)
    with contextlib.ExitStack() as stack:
        stack.enter_context(processes.marked())
        logs = options.out / "logs"
        redis_url = stack.enter_context(processes.redis_server(logs))
        arguments = ("--max-sessions", "64", "--require-level", "0")
        sandbox = stack.enter_context(processes.sandbox_server(logs, redis_url, arguments=arguments))
        asked = replace(asked, given={**asked.given, "sandbox_urls": (sandbox,)})
        scripted = request_server(scripted_reply, models=("scripted", "judge"))
        judge = asked.scoring.judge
        if asked.model is None or not judge.base_urls:
            url = stack.enter_context(scripted)
            judge = judge if judge.base_urls else judge.model_copy(update={"base_urls": (url,)})
            asked = replace(asked, scoring=replace(asked.scoring, judge=judge))
            if asked.model is None:
                asked = replace(asked, model="scripted", base_urls=(url,))
        return suite.run_suite(replace(options, asked=asked))


if __name__ == "__main__":
    main()
