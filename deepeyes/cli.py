"""The `deepeyes` command: a thin sub-command per room. Each imports what it needs only when it is called."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from code_sandbox.command_line import MISTAKE, CommandParser, add_json_option, end, program


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = _parser()
    words = sys.argv[1:] if arguments is None else arguments
    options, rest = parser.parse_known_args(words)
    if rest and options.handler is not _pass_on:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    prog = f"deepeyes {options.command}"
    with program(prog):
        try:
            sys.exit(options.handler(options) or 0)
        except ModuleNotFoundError as error:
            end(MISTAKE, f"{prog}: {_missing(options.command, error)}")


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="deepeyes",
        description="Agentic vision-language models: train, evaluate, talk.",
        epilog=_EXIT_CODES,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and end")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in _ADDED:
        add(commands)
    return parser


_EXIT_CODES = """exit codes:
  0    all is well
  1    something failed, or was found not to be well
  2    called wrongly, or something that you name is not there
  3    no score came of it, or one over too little
  4    a server that is needed is away, or is not what was asked for
  130  Ctrl-C; 143 and 129: told to end (SIGTERM, SIGHUP)

`deepeyes completion bash|zsh|fish` completes commands and options in your shell."""


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
    return f"the package {package} is not installed: pip install 'deepeyes[{_EXTRAS[command]}]'"


Commands = argparse._SubParsersAction


def _add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("doctor", help="what is installed, reachable and missing, and what to do")
    parser.add_argument(
        "--judge-model", default="judge", metavar="NAME", help="of a judge that is served under another name"
    )
    add_json_option(parser)
    parser.set_defaults(handler=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from deepeyes.doctor import report

    return report(judge_model=options.judge_model, as_json=options.json)


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
    bench.add_argument("options", nargs="*", help="of the benchmark")
    bench.set_defaults(handler=_sandbox_bench)
    run = actions.add_parser("run", help="run one file of Python in a session")
    run.add_argument("file", type=Path, help="`-` for standard input")
    run.add_argument("--image", type=Path, action="append", default=[], help="preloaded as image_1, image_2, …")
    run.add_argument(
        "--url", default=os.environ.get("CODE_SANDBOX_URL", "http://127.0.0.1:8000"), help="of the server; CODE_SANDBOX_URL"
    )
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

    try:
        code = sys.stdin.read() if str(options.file) == "-" else options.file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{options.file} is no UTF-8 text, and so no Python: {error}") from error
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
            path = _new_file(f"output_{number}", image.mime.removeprefix("image/"))
            path.write_bytes(image.data)
            print(f"[image of {image.width_px}x{image.height_px} px written to {path}]", file=sys.stderr)
        return int(result.status != "ok")

    return asyncio.run(execute())


def _new_file(stem: str, ending: str) -> Path:
    """A name that nothing has here; what was written before stays."""
    path, again = Path(f"{stem}.{ending}"), 2
    while path.exists():
        path, again = Path(f"{stem}_{again}.{ending}"), again + 1
    return path


_RECORDING = "the file that mode=record wrote"


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
    query.add_argument("query", help="what to search for")
    add_json_option(query)
    query.add_argument("--index", type=Path, help="a local index, or a .jsonl file")
    query.add_argument("--provider", default="local", help="of agent/search/providers; a key comes from the environment")
    query.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the block, such as mode=record"
    )
    query.add_argument("--max-hits", type=int, help="by default as in training")
    query.set_defaults(handler=_search_query)
    stats = actions.add_parser("stats", help="what a recording holds, and what it cost")
    stats.add_argument("recording", type=Path, help=_RECORDING)
    add_json_option(stats)
    stats.set_defaults(handler=_search_stats)
    export = actions.add_parser("export", help="write a recording as JSON lines")
    export.add_argument("recording", type=Path, help=_RECORDING)
    export.add_argument("--out", type=Path, help="by default standard output")
    export.set_defaults(handler=_search_export)
    merge = actions.add_parser("merge", help="take over what other recordings hold; what is there already stays")
    merge.add_argument("target", type=Path, help="the recording that takes over; made if it is not there")
    merge.add_argument("source", type=Path, nargs="+", help="other recordings")
    merge.set_defaults(handler=_search_merge)


def _search_index(options: argparse.Namespace) -> None:
    from deepeyes.search import index

    index(options.source, options.out)


def _search_query(options: argparse.Namespace) -> None:
    from deepeyes.search import query

    asked = query(options.query, options.provider, options.index, options.set, options.max_hits, as_json=options.json)
    asyncio.run(asked)


def _search_stats(options: argparse.Namespace) -> None:
    from deepeyes.search import stats

    stats(options.recording, as_json=options.json)


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


def _add_passed_on(commands: Commands[argparse.ArgumentParser]) -> None:
    for name, (module, text) in _PASSED_ON.items():
        _pass_on_to(commands, name, module, text, prog=f"deepeyes {name}")


def _pass_on_to(
    commands: Commands[argparse.ArgumentParser], name: str, module: str, text: str, *, prog: str
) -> None:
    """Let another module's `main` read what follows a command.

    Args:
        commands: The command is added here.
        name: Of the command.
        module: With `main(arguments, prog=…)`.
        text: For the list of commands.
        prog: How it is called here.
    """
    commands.add_parser(name, help=text, add_help=False).set_defaults(handler=_pass_on, module=module, prog=prog)


def _pass_on(options: argparse.Namespace) -> None:
    import importlib

    module = options.module
    if options.command == "export" and any(word.partition("=")[0] == "--to" for word in options.rest):
        module = "evaluation.exchange.export"
    importlib.import_module(module).main(options.rest, prog=options.prog)


def _add_completion(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("completion", help="what your shell completes commands and options with")
    parser.description = """What your shell completes commands and options with.

    bash   eval "$(deepeyes completion bash)"                     in ~/.bashrc, or written to a file that it reads
    zsh    deepeyes completion zsh > "${fpath[1]}/_deepeyes"
    fish   deepeyes completion fish > ~/.config/fish/completions/deepeyes.fish

Options of rooms whose extra is not installed are left out."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")
    parser.set_defaults(handler=_completion)


def _completion(options: argparse.Namespace) -> None:
    import shtab

    from deepeyes.command_tree import whole_tree

    print(shtab.complete(whole_tree(_parser), shell=options.shell))


_ADDED: tuple[Callable[[Commands[Any]], None], ...] = (
    _add_doctor, _add_sandbox, _add_search, _add_judge, _add_data, _add_view, _add_passed_on, _add_completion,
)  # fmt: skip

if __name__ == "__main__":
    main()
