"""The `deepeyes` command: a thin sub-command per room. Each imports what it needs only when it is called."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from agent.errors import EpisodeFailure, ToolError
from code_sandbox.redaction import redacted


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="deepeyes",
        description="Agentic vision-language models: train, evaluate, talk.",
        epilog="Ends with 0 if all is well, 1 if something failed, 2 if it was called wrongly, 130 if it was interrupted.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_doctor, _add_sandbox, _add_search, _add_judge, _add_data, _add_view, _add_passed_on):
        add(commands)
    options, rest = parser.parse_known_args(arguments)
    if rest and options.handler is not _pass_on:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    handler: Callable[[argparse.Namespace], int | None] = options.handler
    try:
        sys.exit(handler(options) or 0)
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        sys.exit(_missing(options.command, error))
    except (OSError, ValueError, LookupError, RuntimeError, EpisodeFailure, ToolError) as error:
        sys.exit(redacted(f"deepeyes {options.command}: {_in_a_line(error)}"))


def _in_a_line(error: Exception) -> str:
    """What pydantic says over many lines, and with an address, in one."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return str(error)
    problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()]
    return "; ".join(f"{name}: {said}" if name else said for name, said in problems)


class _Version(argparse.Action):
    """Looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import importlib.metadata

        print(f"deepeyes {importlib.metadata.version('deepeyes')}")
        parser.exit()


_EXTRAS = {
    "sandbox": "sandbox", "search": "search", "judge": "judge", "data": "data", "view": "view", "curate": "curate,eval,rl",
    "plan": "rl", "eval": "eval", "leaderboard": "eval", "compare": "eval", "rejudge": "eval",
    "contamination": "eval,search", "export": "rl", "sft": "sft", "rl": "rl",
}  # fmt: skip
"""Command -> what `pip install 'deepeyes[...]'` brings it."""


def _missing(command: str, error: ModuleNotFoundError) -> str:
    if error.name is None or command not in _EXTRAS:
        raise error
    package = error.name.partition(".")[0]
    return f"deepeyes {command}: the package {package} is not installed: pip install 'deepeyes[{_EXTRAS[command]}]'"


Commands = argparse._SubParsersAction


def _add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("doctor", help="what is installed, reachable and missing, and what to do")
    parser.add_argument(
        "--judge-model", default="judge", metavar="NAME", help="of a judge that is served under another name"
    )
    parser.set_defaults(handler=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from deepeyes.doctor import report

    return report(judge_model=options.judge_model)


def _add_sandbox(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("sandbox", help="the code sandbox")
    actions = parser.add_subparsers(dest="action", required=True)
    for action, module, text in (
        ("serve", "code_sandbox.server.__main__", "start a server"),
        ("attack", "code_sandbox.attacks.__main__", "attack a server that is yours, and see what holds"),
        ("doctor", "code_sandbox.server.doctor", "which isolation this machine allows, and what is missing"),
    ):
        _pass_on_to(actions, action, module, text, prog=f"deepeyes sandbox {action}")
    # No prefix and no help of its own: whatever stands behind it is the benchmark's, `--help` too.
    bench = actions.add_parser(
        "bench",
        help="what sessions and cells cost here; options of benchmarks/sandbox_sessions.py",
        prefix_chars="\0",
        add_help=False,
    )
    bench.add_argument("options", nargs="*")
    bench.set_defaults(handler=_sandbox_bench)
    run = actions.add_parser("run", help="run one file of Python in a session")
    run.add_argument("file", type=Path, help="`-` for standard input")
    run.add_argument("--image", type=Path, action="append", default=[], help="preloaded as image_1, image_2, …")
    run.add_argument("--url", default=os.environ.get("CODE_SANDBOX_URL", "http://127.0.0.1:8000"))
    run.set_defaults(handler=_sandbox_run)


def _sandbox_bench(options: argparse.Namespace) -> int:
    import subprocess

    # Benchmarks are no part of what is installed: they belong to a checkout.
    root = Path(__file__).resolve().parent.parent
    if not (root / "benchmarks" / "sandbox_sessions.py").is_file():
        raise RuntimeError("benchmarks are in the repository, not in the installed package; run it in a checkout")
    return subprocess.run([sys.executable, "-m", "benchmarks.sandbox_sessions", *options.options], cwd=root).returncode


def _sandbox_run(options: argparse.Namespace) -> int:
    from code_sandbox.client import SandboxClient
    from code_sandbox.errors import SandboxError

    code = sys.stdin.read() if str(options.file) == "-" else options.file.read_text(encoding="utf-8")
    images = [path.read_bytes() for path in options.image]

    async def execute() -> int:
        async with SandboxClient(options.url, wait_s=5.0) as client:
            session = await client.open(images)
            try:
                result = await session.execute(code)
            finally:
                await session.close()
        sys.stdout.write(result.stdout)
        sys.stderr.write(result.stderr)
        if result.result:
            print(result.result)
        if result.error:
            print(result.error.traceback, file=sys.stderr)
        for number, image in enumerate(result.images, start=1):
            path = Path(f"output_{number}.{image.mime.removeprefix('image/')}")
            path.write_bytes(image.data)
            print(f"[image of {image.width_px}x{image.height_px} px written to {path}]", file=sys.stderr)
        return int(result.status != "ok")

    try:
        return asyncio.run(execute())
    except SandboxError as error:
        raise RuntimeError(str(error)) from error


def _add_search(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("search", help="build a local index; ask a provider; look after recordings")
    actions = parser.add_subparsers(dest="action", required=True)
    index = actions.add_parser("index", help="build an index; run it again to go on after an interruption")
    index.add_argument(
        "source", type=Path, help="JSON lines, Markdown or a MediaWiki dump, plain, .gz or .bz2; or a folder of them"
    )
    index.add_argument("--out", type=Path, help="folder of the index; by default beside the source, with .index added")
    index.set_defaults(handler=_search_index)
    query = actions.add_parser("query", help="ask a provider, and print what the model would see")
    query.add_argument("query")
    query.add_argument("--index", type=Path, help="a local index, or a .jsonl file")
    query.add_argument("--provider", default="local", help="of agent/search/providers; a key comes from the environment")
    query.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the block, such as mode=record"
    )
    query.add_argument("--max-hits", type=int, help="by default as in training")
    query.set_defaults(handler=_search_query)
    stats = actions.add_parser("stats", help="what a recording holds, and what it cost")
    stats.add_argument("recording", type=Path)
    stats.set_defaults(handler=_search_stats)
    export = actions.add_parser("export", help="write a recording as JSON lines")
    export.add_argument("recording", type=Path)
    export.add_argument("--out", type=Path, help="by default standard output")
    export.set_defaults(handler=_search_export)
    merge = actions.add_parser("merge", help="take over what other recordings hold; what is there already stays")
    merge.add_argument("target", type=Path)
    merge.add_argument("source", type=Path, nargs="+")
    merge.set_defaults(handler=_search_merge)


def _search_index(options: argparse.Namespace) -> None:
    from deepeyes.search import index

    index(options.source, options.out)


def _search_query(options: argparse.Namespace) -> None:
    from deepeyes.search import query

    asyncio.run(query(options.query, options.provider, options.index, options.set, options.max_hits))


def _search_stats(options: argparse.Namespace) -> None:
    from deepeyes.search import stats

    stats(options.recording)


def _search_export(options: argparse.Namespace) -> None:
    from deepeyes.search import export

    export(options.recording, options.out)


def _search_merge(options: argparse.Namespace) -> None:
    from deepeyes.search import merge

    merge(options.target, options.source)


def _add_judge(commands: Commands[argparse.ArgumentParser]) -> None:
    _pass_on_to(
        commands,
        "judge",
        "judge.__main__",
        "judge one answer; `doctor` and `agreement` look at the judge",
        prog="deepeyes judge",
    )


def _add_data(commands: Commands[argparse.ArgumentParser]) -> None:
    from data.commands import ACTIONS

    parser = commands.add_parser("data", help=f"training data and benchmarks: {', '.join(ACTIONS)}")
    actions = parser.add_subparsers(dest="action", required=True)
    for action, (module, text) in ACTIONS.items():
        _pass_on_to(actions, action, module, text, prog=f"deepeyes data {action}")


def _add_view(commands: Commands[argparse.ArgumentParser]) -> None:
    _pass_on_to(commands, "view", "viewer.__main__", "look at recorded episodes in a browser", prog="deepeyes view")


_PASSED_ON = {
    "sft": ("cold_start.train", "cold start: supervised fine-tuning of a recipe with LLaMA-Factory"),
    "rl": ("reinforcement_learning.train", "GRPO of a recipe with verl, Ray and vLLM"),
    "curate": ("curation.run", "make training data out of questions: filters, samples, trajectories, a card"),
    "chat": ("deepeyes.chat.command", "talk with a served model, with the sandbox and, if named, search"),
    "plan": ("deepeyes.plan", "memory, disk, sandbox and judge that a training recipe will need"),
    "eval": ("evaluation.run", "evaluate a model on a benchmark"),
    "leaderboard": ("evaluation.reports.leaderboard", "many runs in one table"),
    "compare": ("evaluation.analysis.compare", "two runs over the same items: gain, harm, significance"),
    "rejudge": ("evaluation.runs.rejudge", "would another judge have decided the same?"),
    "export": (
        "reinforcement_learning.export",
        "an RL run's model as a Hugging Face folder; with --to, an evaluation for VLMEvalKit, lmms-eval or inspect",
    ),
    "contamination": ("evaluation.analysis.contamination", "does training data hold items of a benchmark?"),
}
"""Commands that have a parser of their own, which is not loaded for the others."""
_NAMED = ("curate", "sft", "rl")
"""Of these, whose `main` takes how it is called."""


def _add_passed_on(commands: Commands[argparse.ArgumentParser]) -> None:
    for name, (module, text) in _PASSED_ON.items():
        _pass_on_to(commands, name, module, text)


def _pass_on_to(
    commands: Commands[argparse.ArgumentParser], name: str, module: str, text: str, *, prog: str | None = None
) -> None:
    """Let another module's `main` read what follows a command.

    Args:
        commands: The command is added here.
        name: Of the command.
        module: With `main(arguments)`.
        text: For the list of commands.
        prog: Of a program that is also called without `deepeyes`: how it is called here; its `main` takes it.
    """
    commands.add_parser(name, help=text, add_help=False).set_defaults(handler=_pass_on, module=module, prog=prog)


def _pass_on(options: argparse.Namespace) -> None:
    import importlib

    module = options.module
    if options.command == "export" and any(word.partition("=")[0] == "--to" for word in options.rest):
        module = "evaluation.exchange.export"
    prog = options.prog or (f"deepeyes {options.command}" if options.command in _NAMED else None)
    named = {"prog": prog} if prog else {}
    importlib.import_module(module).main(options.rest, **named)


if __name__ == "__main__":
    main()
