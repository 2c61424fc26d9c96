"""What all programs have in common: their help, and how they end."""

import argparse
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from code_sandbox.command_line import CommandEnded, program
from deepeyes.cli import _parser, main
from deepeyes.command_tree import whole_tree
from tests.conftest import ROOT


def commands(parser):
    """Every parser below one."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from commands(command)
    yield parser


def test_every_program_has_a_description_and_for_every_option_a_help_with_its_default():
    found = list(commands(whole_tree(_parser)))
    assert {"deepeyes eval", "deepeyes curate run", "deepeyes data prepare", "deepeyes sandbox serve"} <= {p.prog for p in found}
    for parser in found:
        assert parser.description, parser.prog
        shown = " ".join(parser.format_help().split())
        for action in parser._actions:
            assert action.help or isinstance(action, argparse._SubParsersAction), (parser.prog, action.dest)
            if isinstance(action.default, int | float) and action.default and action.option_strings:
                assert re.search(rf"default:? (is )?{action.default}|\({action.default}\)", shown), (parser.prog, action.dest)


def test_shells_complete_the_options_of_every_program(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["completion", "bash"])
    assert ended.value.code == 0
    script = capsys.readouterr().out
    for option in ("--benchmark", "--accept-changes", "--provider", "--require-level", "--unpack"):
        assert option in script
    asked = "COMP_WORDS=(deepeyes eval --bench); COMP_CWORD=2; _shtab_deepeyes; echo ${COMPREPLY[@]}"
    answer = subprocess.run(["bash", "-c", f"{script}\n{asked}"], capture_output=True, text=True, timeout=60, check=False)
    assert answer.stdout.split() == ["--benchmark"], answer.stderr


def test_a_full_disk_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["deepeyes", "--out", str(tmp_path / "run")])
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=0 if folder == tmp_path else 1 << 40))
    with pytest.raises(CommandEnded) as ended, program("deepeyes eval"):
        Path("/dev/full").write_text("x")
    assert ended.value.code == 1
    assert f"{tmp_path} is full; make room, and run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_program_that_is_told_to_end_stops_what_it_started_and_says_so(tmp_path, number, code):
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from code_sandbox.command_line import program, sign_of_life; from serving.processes import start, stop\n"
        "with program('outer'), program('p', note='the same command resumes'), sign_of_life('at work', every_s=0.1):\n"
        "    child = start(['sleep', '300'], log=Path(sys.argv[1]))\n"
        "    try:\n"
        "        print(child.pid, flush=True)\n"
        "        asyncio.run(asyncio.sleep(300))\n"
        "    finally:\n"
        "        stop(child)\n"
    )
    ours = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "log")],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert ours.stdout is not None
    child = int(ours.stdout.readline())
    time.sleep(0.3)
    ours.send_signal(number)
    _, said = ours.communicate(timeout=30)
    assert ours.returncode == code
    assert said.splitlines()[-1] == "p: interrupted; the same command resumes"
    assert said.startswith("at work · 0 s\n")
    assert "Traceback" not in said
    assert not psutil.pid_exists(child)


@pytest.mark.parametrize("size", [1, 10**6])
def test_who_reads_no_further_ends_a_program_in_silence(size):
    work = f"import time; time.sleep(0.5); print('x\\n' * {size}); raise SystemExit(0)"
    script = f"from code_sandbox.command_line import program\nwith program('p'): exec({work!r})"
    command = f"{sys.executable} -c {shlex.quote(script)} | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.parametrize("fault", [KeyError("x"), IndexError("list index out of range"), TypeError("x"), AssertionError("x")])
def test_a_fault_of_a_program_keeps_its_traceback(fault):
    with pytest.raises(type(fault)) as raised, program("p"):
        raise fault
    assert raised.value is fault
