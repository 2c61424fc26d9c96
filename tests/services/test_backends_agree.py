"""The fork back-end against real Jupyter kernels: the same cells, the same outcome."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_sandbox.client import SandboxClient
from code_sandbox.wire import ExecuteResult
from serving.processes import sandbox_server
from tests.conftest import png
from tests.services.cells import DIFFERENT, GROUPS

pytestmark = pytest.mark.services


def outcome(result: ExecuteResult) -> tuple:
    """What must agree. Times and addresses never do; a traceback's last line does."""
    last = result.error.traceback.strip().splitlines()[-1] if result.error else ""
    timed = re.compile(r"(?:CPU times|Wall time).*")
    hexed = re.compile(r"0x[0-9a-fA-F]+")
    sizes = [(image.mime, image.width_px, image.height_px) for image in result.images]
    text = [hexed.sub("0x", timed.sub("", part)).strip() for part in (result.stdout, result.result, last)]
    return result.status, *text, result.error.name if result.error else "", sizes


@pytest.fixture(scope="module")
def urls(redis_url, tmp_path_factory):
    fork, jupyter = (("--backend", name, "--require-level", "0") for name in ("fork", "jupyter"))
    directory = tmp_path_factory.mktemp("both")
    with (
        sandbox_server(directory / "fork", redis_url, arguments=fork) as first,
        sandbox_server(directory / "jupyter", redis_url, arguments=jupyter) as second,
    ):
        yield first, second


async def play(url: str, cells: list[str]) -> list[tuple]:
    async with SandboxClient(url) as client:
        session = await client.open([png(40, 30)])
        try:
            return [outcome(await session.execute(cell, timeout_s=20)) for cell in cells]
        finally:
            await session.close()


@pytest.mark.parametrize("name", GROUPS)
async def test_every_cell_of_the_corpus_ends_alike_on_both_back_ends(urls, name):
    cells = GROUPS[name]
    fork, jupyter = [await play(url, cells) for url in urls]
    differing = [
        f"{cell!r}\n  fork    {mine}\n  jupyter {theirs}"
        for cell, mine, theirs in zip(cells, fork, jupyter, strict=True)
        if mine != theirs and cell not in DIFFERENT
    ]
    assert not differing, "\n".join(differing)


_NAMES = st.sampled_from(["a", "b", "c"])
_VALUES = st.sampled_from(
    ["1", "2.5", "'s'", "[1, 2]", "a", "b", "a + 1", "len(b)", "b[0]", "1 / 0", "c", "None", "{'k': a}"]
)
_STATEMENTS = st.one_of(
    st.builds("{} = {}".format, _NAMES, _VALUES),
    st.builds("print({})".format, _VALUES),
    _VALUES,
    st.builds("if {}:\n    print({})\nelse:\n    {} = {}".format, _VALUES, _VALUES, _NAMES, _VALUES),
    st.builds("for i in range(2):\n    {} = {}\n    print(i)".format, _NAMES, _VALUES),
    st.builds("try:\n    {}\nexcept Exception as error:\n    print(type(error).__name__)".format, _VALUES),
    st.builds("def f():\n    return {}\nf()".format, _VALUES),
)


@settings(max_examples=15)
@given(st.lists(st.lists(_STATEMENTS, min_size=1, max_size=4).map("\n".join), min_size=1, max_size=6))
def test_made_up_programs_end_alike_on_both_back_ends(urls, cells):
    async def both():
        return [await play(url, cells) for url in urls]

    fork, jupyter = asyncio.run(both())
    assert fork == jupyter


async def test_exit_ends_nothing_on_the_fork_back_end_where_it_would_end_a_jupyter_kernel(urls):
    assert [row[:3] for row in await play(urls[0], ["x = 1", "x"])][-1] == ("ok", "", "1")


async def test_what_a_subprocess_writes_comes_after_pythons_own_output_on_the_fork_back_end(urls):
    code = "import subprocess\nprint('first', flush=True)\nsubprocess.run(['echo', 'second'])\nprint('third')"
    fork = await play(urls[0], [code])
    # ipykernel reads in a thread what a child wrote; what that thread has not read when the cell ends is not the cell's.
    jupyter = await play(urls[1], [f"{code}\nimport time; time.sleep(0.5)"])
    assert fork[0][1].split() == ["first", "third", "second"]
    assert sorted(jupyter[0][1].split()) == ["first", "second", "third"]
