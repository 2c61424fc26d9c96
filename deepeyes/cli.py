"""The `deepeyes` command: a thin sub-command per room. Each imports what it needs only when it is called."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path

from agent.errors import EpisodeFailure


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="deepeyes", description="Agentic vision-language models: train, evaluate, talk.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_doctor, _add_sandbox, _add_search, _add_judge, _add_data, _add_chat, _add_view, _add_passed_on):
        add(commands)
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in _PASSED_ON:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    handler: Callable[[argparse.Namespace], int | None] = options.handler
    try:
        sys.exit(handler(options) or 0)
    except KeyboardInterrupt:
        sys.exit(130)
    except (OSError, ValueError, LookupError, RuntimeError, EpisodeFailure) as error:
        sys.exit(f"deepeyes {options.command}: {error}")


Commands = argparse._SubParsersAction


def _add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("doctor", help="what is installed, reachable and missing, and what to do")
    parser.set_defaults(handler=_doctor)


def _doctor(_: argparse.Namespace) -> int:
    from deepeyes.doctor import report

    return report()


def _add_sandbox(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("sandbox", help="the code sandbox")
    actions = parser.add_subparsers(dest="action", required=True)
    serve = actions.add_parser("serve", help="start a server")
    serve.add_argument("--config", type=Path, help="YAML with names of code_sandbox/server/settings.py; options go above it")
    serve.add_argument("--host")
    serve.add_argument("--port", type=int)
    serve.add_argument("--uds", help="path of a Unix socket to listen on instead")
    serve.add_argument("--redis-url", default=os.environ.get("REDIS_URL"))
    serve.add_argument("--backend", choices=("fork", "jupyter"))
    serve.add_argument("--max-sessions", type=int)
    serve.add_argument("--spare-kernels", type=int, help="kept ready for sessions to come")
    serve.add_argument("--require-level", type=int, choices=(0, 1, 2, 3), help="refuse to start with less isolation")
    serve.add_argument("--without", action="append", help="leave a layer of isolation out, to compare; may be repeated")
    serve.add_argument("--cgroup", action="append", dest="cgroups", help="a control group set aside for this server")
    serve.add_argument("--lease-s", type=float)
    serve.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    serve.add_argument("--log-code", action="store_true", default=None, help="write every cell's code into the log")
    serve.set_defaults(handler=_sandbox_serve)
    attack = actions.add_parser("attack", help="attack a server that is yours, and see what holds")
    attack.add_argument("name", nargs="*", help="of attacks in code_sandbox/attacks; all by default")
    attack.add_argument("--url", default=os.environ.get("CODE_SANDBOX_URL", "http://127.0.0.1:8000"))
    attack.add_argument("--level", type=int, choices=(0, 1, 2, 3), help="to hold it to; by default what it says it reached")
    attack.set_defaults(handler=_sandbox_attack)
    bench = actions.add_parser("bench", help="what sessions and cells cost here; options of benchmarks/sandbox_sessions.py")
    bench.add_argument("options", nargs=argparse.REMAINDER)
    bench.set_defaults(handler=_sandbox_bench)
    doctor = actions.add_parser("doctor", help="which isolation this machine allows, and what is missing")
    doctor.add_argument("--without", action="append", default=[], help="leave a layer out")
    doctor.add_argument("--cgroup", action="append", default=[], help="a control group set aside for sandboxes")
    doctor.set_defaults(handler=_sandbox_doctor)
    run = actions.add_parser("run", help="run one file of Python in a session")
    run.add_argument("file", type=Path, help="`-` for standard input")
    run.add_argument("--image", type=Path, action="append", default=[], help="preloaded as image_1, image_2, …")
    run.add_argument("--url", default=os.environ.get("CODE_SANDBOX_URL", "http://127.0.0.1:8000"))
    run.set_defaults(handler=_sandbox_run)


def _sandbox_serve(options: argparse.Namespace) -> None:
    from code_sandbox.server.serving import serve
    from code_sandbox.server.settings import load_settings

    names = (
        "host", "port", "uds", "redis_url", "backend", "max_sessions", "spare_kernels", "require_level", "without",
        "cgroups", "lease_s", "log_level", "log_code",
    )  # fmt: skip
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    serve(load_settings(options.config, given))


def _sandbox_bench(options: argparse.Namespace) -> int:
    import subprocess

    # Benchmarks are no part of what is installed: they belong to a checkout.
    root = Path(__file__).resolve().parent.parent
    return subprocess.run([sys.executable, "-m", "benchmarks.sandbox_sessions", *options.options], cwd=root).returncode


def _sandbox_doctor(options: argparse.Namespace) -> int:
    from code_sandbox.server.serving import measure_here
    from code_sandbox.server.settings import load_settings

    isolation = asyncio.run(measure_here(load_settings(None, {"without": options.without, "cgroups": options.cgroup})))
    print(f"isolation level {isolation.level} ({isolation.name}), through {', '.join(isolation.layers) or 'limits only'}")
    print(f"cells cannot: {', '.join(isolation.refused) or 'nothing'}")
    for attempt in isolation.allowed:
        print(f"cells CAN:    {attempt}")
    for layer, reason in isolation.missing.items():
        print(f"missing:      {layer}: {reason}")
    return int(isolation.level == 0)


def _sandbox_attack(options: argparse.Namespace) -> int:
    from deepeyes.attack import report

    return asyncio.run(report(options.url, options.name, options.level))


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
    query.add_argument("--max-hits", type=int, default=5)
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
    parser = commands.add_parser("judge", help="judge one answer, by rules and, if there is one, by an LLM")
    parser.add_argument("--question", default="")
    parser.add_argument("--gold", required=True)
    parser.add_argument("--answer", required=True)
    parser.add_argument("--base-url", default=os.environ.get("LLM_AS_A_JUDGE_BASE", ""), help="comma-separated, with /v1")
    parser.set_defaults(handler=_judge)


def _judge(options: argparse.Namespace) -> int:
    from judge.client import Judge, JudgeSettings

    async def ask() -> int:
        urls = tuple(url.strip() for url in options.base_url.split(",") if url.strip())
        judge = Judge(JudgeSettings(base_urls=urls))
        try:
            verdict = await judge.judge(options.answer, options.gold, question=options.question)
        finally:
            await judge.aclose()
        print(f"{verdict.outcome.value} (by {verdict.decided_by}) {verdict.reason}".rstrip())
        return {True: 0, False: 1, None: 2}[verdict.correct]

    return asyncio.run(ask())


def _add_data(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("data", help="make the toy data")
    actions = parser.add_subparsers(dest="action", required=True)
    tiles = actions.add_parser("tiles", help="the toy task: training data, benchmark, search pages")
    tiles.add_argument("directory", type=Path)
    tiles.set_defaults(handler=_data_tiles)


def _data_tiles(options: argparse.Namespace) -> None:
    from data.tiles import write_dataset

    write_dataset(options.directory)
    print(f"written to {options.directory}")


def _add_chat(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("chat", help="ask a served model one question, with the sandbox and, if named, search")
    parser.add_argument("question")
    parser.add_argument("--image", type=Path, action="append", default=[])
    parser.add_argument("--model", help="name at the server; by default the first it lists")
    parser.add_argument(
        "--base-url", default="http://127.0.0.1:8001/v1", help="any OpenAI-compatible server; key: OPENAI_API_KEY"
    )
    parser.add_argument(
        "--dialect", choices=("vllm", "openai"), default="vllm", help="`openai` for servers that are not vLLM"
    )
    parser.add_argument("--sandbox-url", default=os.environ.get("CODE_SANDBOX_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--search-index", type=Path, help="a local index; adds the tools `search` and `fetch_page`")
    parser.add_argument("--search", metavar="PROVIDER", help="a live provider instead, such as serper; needs its key")
    parser.add_argument("--image-folder", type=Path, help="images among which `image_search` finds the nearest")
    parser.add_argument("--prompt", default="deepeyesv2", help="of agent/prompts")
    parser.add_argument("--any-image", action="store_true", help="see agent/tools/image_search.py")
    parser.add_argument("--max-reply-tokens", type=int, help="by default whatever the server's context holds")
    parser.add_argument("--max-turns", type=int, default=9)
    parser.add_argument("--deadline-s", type=float, help="for its programs together, and for each reply")
    parser.add_argument("--python-timeout-s", type=float, default=200.0)
    parser.add_argument(
        "--out", type=Path, help="record the episode here, for `deepeyes view`, with the images that were shown"
    )
    parser.set_defaults(handler=_chat)


def _chat(options: argparse.Namespace) -> int:
    from deepeyes.chat import chat

    return asyncio.run(chat(options))


def _add_view(commands: Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("view", help="look at recorded episodes in a browser")
    parser.add_argument("directory", type=Path, nargs="+", help="a folder with episodes; two are shown side by side")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--tokenizer", type=Path, help="folder of a model; by default that of the run's recipe")
    parser.add_argument("--out", type=Path, help="write one page to this file instead of serving")
    parser.add_argument("--limit", type=int, default=200, help="episodes in that file")
    parser.set_defaults(handler=_view)


def _view(options: argparse.Namespace) -> None:
    if options.out:
        from viewer.static_page import write_episodes_page

        count = write_episodes_page(options.directory[0], options.out, limit=options.limit)
        print(f"{count} episodes in {options.out}")
        return
    from viewer.app import serve

    serve(options.directory, host=options.host, port=options.port, tokenizer=options.tokenizer)


_PASSED_ON = {
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
    for name, (_, text) in _PASSED_ON.items():
        commands.add_parser(name, help=text, add_help=False).set_defaults(handler=_pass_on)


def _pass_on(options: argparse.Namespace) -> None:
    import importlib

    module = _PASSED_ON[options.command][0]
    if options.command == "export" and any(word.partition("=")[0] == "--to" for word in options.rest):
        module = "evaluation.exchange.export"
    importlib.import_module(module).main(options.rest)


if __name__ == "__main__":
    main()
