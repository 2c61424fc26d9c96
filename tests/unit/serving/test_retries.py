"""One policy of asking again, for everything that asks a server."""

import asyncio
import re
import subprocess
import sys

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import PolicyUnavailable, ToolUnavailable
from agent.openai_chat import ChatClient, ChatSettings
from agent.search.web import WebClient, WebSettings
from judge.client import Judge, JudgeSettings
from serving.processes import ProgramFailed, start, stop, wait_until_up
from serving.retries import BROKEN, RETRIED, TOO_MUCH, pause_before_s
from serving.urls import split_urls
from tests.conftest import ROOT
from tests.queued_transport import queued_transport


@given(st.integers(1, 2000), st.floats(0.5, 60))
def test_a_pause_doubles_up_to_the_longest_and_chance_moves_it_by_half(attempt, longest_s):
    wanted_s = min(0.5 * 2.0 ** (attempt - 1), longest_s) if attempt < 1000 else longest_s
    assert 0.5 * wanted_s <= pause_before_s(attempt, longest_s=longest_s) <= 1.5 * wanted_s
    assert pause_before_s(0, longest_s=longest_s) == 0.0


async def ask_judge(answer, attempts):
    transport, seen = queued_transport(*[answer] * attempts)
    judge = Judge(JudgeSettings(base_urls=("http://a/v1",), attempts=attempts, patience_s=0), transport=transport)
    assert (await judge.judge("crimson", "red", question="q")).outage
    return seen


async def ask_policy(answer, attempts):
    transport, seen = queued_transport(*[answer] * attempts)
    client = ChatClient(ChatSettings(base_url="http://a/v1", model="m", attempts=attempts), transport=transport)
    with pytest.raises(PolicyUnavailable):
        await client.complete({})
    return seen


async def ask_source(answer, attempts):
    transport, seen = queued_transport(*[answer] * attempts)
    with pytest.raises(ToolUnavailable):
        await WebClient("s", WebSettings(attempts=attempts), transport=transport).json("GET", "http://a/")
    return seen


@pytest.mark.parametrize("ask", [ask_judge, ask_policy, ask_source])
async def test_whoever_asks_a_server_asks_again_after_the_same_statuses(ask):
    seen = await asyncio.gather(*(ask(httpx.Response(status), 2) for status in RETRIED))
    assert [len(requests) for requests in seen] == [2] * len(RETRIED)


def test_the_table_of_the_readme_is_the_policy():
    rows = re.findall(r"^\| ([\d, ]+) \| (.+?) \| (.+?) \| (.+?) \|$", (ROOT / "serving/README.md").read_text(), re.MULTILINE)
    said = {int(status): row[1:] for row in rows for status in row[0].split(",")}
    assert set(said) == RETRIED
    for status, (again, against, fewer) in said.items():
        assert again == "yes"
        assert against.startswith("yes") is (status in BROKEN)
        assert fewer.startswith("yes") is (status in TOO_MUCH)


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        (None, ()),
        ("", ()),
        (" , ,", ()),
        ("http://a/v1", ("http://a/v1",)),
        (" http://a/v1 ,http://b/v1,", ("http://a/v1", "http://b/v1")),
        ("http://a/v1\n,\thttp://b/v1", ("http://a/v1", "http://b/v1")),
    ],
)
def test_urls_are_read_with_blanks_and_spare_commas(text, urls):
    assert split_urls(text) == urls


def test_comma_separated_urls_are_read_in_one_place_and_in_the_sandbox_which_stands_alone():
    names = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    reads = re.compile(r"url\w*(?:\", \"\"\))?\.split\(\",\"\)", re.IGNORECASE)
    found = {name for name in names if not name.startswith("tests/") and reads.search((ROOT / name).read_text())}
    assert found == {"code_sandbox/client.py"}


@pytest.mark.parametrize(
    ("code", "timeout_s", "said"),
    [
        ("print('no such model'); raise SystemExit(3)", 20.0, r"it ended with 3 while starting.*no such model"),
        ("import time; print('loading', flush=True); time.sleep(60)", 1.5, r"it was not up within 1\.5 s.*loading"),
    ],
)
def test_a_program_that_does_not_come_up_is_told_with_the_end_of_its_log(tmp_path, code, timeout_s, said):
    def away():
        raise OSError("nobody listens")

    log = tmp_path / "log"
    process = start([sys.executable, "-c", code], log=log)
    try:
        with pytest.raises(ProgramFailed, match=re.compile(said, re.DOTALL)):
            wait_until_up("it", process, away, log=log, timeout_s=timeout_s)
    finally:
        stop(process)
