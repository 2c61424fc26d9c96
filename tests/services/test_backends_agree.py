"""The fork back-end against real Jupyter kernels: the same cells, the same outcome."""

from __future__ import annotations

import asyncio
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from code_sandbox.client import SandboxClient
from code_sandbox.wire import ExecuteResult
from scripts.processes import sandbox_server
from tests.conftest import png

pytestmark = pytest.mark.services

# One session each, in this order: later cells see the variables of earlier ones.
CELLS = [
    "1", "x = 3", "x", "x; x + 1", "x;", "None", "'text'", "[1, 2, 3]", "{'a': (1, 2.5)}", "print(1); print('é')",
    "import sys; print('err', file=sys.stderr)", "print('a', end='')", "print(*range(300))", "_", "__", "_3 if '_3' in dir() else 0",
    "def f(n):\n    return n * 2", "f(21)", "class A:\n    def __repr__(self): return 'an A'", "A()", "lambda: 0 and None",
    "for i in range(3):\n    i", "if True:\n    5", "5 if x else 6", "a = b = 2\na + b", "# only a comment", "", "   \n\n", "pass",
    "1/0", "f(", "def g(:\n  pass", "  indented = 1", "undefined_name", "[][1]", "{}['k']", "int('x')", "raise ValueError('why')",
    "raise ValueError", "try:\n    1/0\nexcept ZeroDivisionError as e:\n    print('caught', e)", "assert x == 4, 'x is 3'",
    "raise KeyboardInterrupt", "class E(Exception): pass\nraise E('own')", "def deep(n):\n    return deep(n - 1) if n else 1/0\ndeep(3)",
    "import math; math.pi", "import numpy as np; np.arange(6).reshape(2, 3)", "np.zeros(3).sum()", "%%time\ny = 5", "y",
    "%pwd" if False else "7", "?print" if False else "8", "!echo shell", "out = !echo captured\nout", "%timeit -q -n1 -r1 1",
    "%who_ls int" if False else "9", "image_1", "image_1.size", "image_1.crop((0, 0, 5, 6))", "display(image_1)", "display(image_1, image_1)",
    "display(3)", "from IPython.display import display as d2\nd2(image_1.rotate(90, expand=True))\n4",
    "import matplotlib.pyplot as plt\nplt.plot([1, 2, 3]);", "plt.plot([3, 2, 1])\nplt.show()", "fig, ax = plt.subplots(figsize=(2, 2)); ax.imshow(image_1)",
    "fig", "plt.figure(); plt.close('all')", "import io; io.StringIO('z').read()", "await __import__('asyncio').sleep(0)", "async def h(): return 5\nawait h()",
    "input('?')", "x", "globals().__class__", "sorted(n for n in dir() if n in ('x', 'f', 'A', 'image_1'))", "import subprocess, sys\nsubprocess.run(['true']).returncode",
    "with open('f.txt', 'w') as file:\n    file.write('kept')", "open('f.txt').read()", "import os; os.path.basename(os.getcwd())", "del x\n'x' in dir()",
    "from PIL import Image; Image.new('L', (3, 4))", "Image.new('RGBA', (9, 9))", "Image.new('P', (3, 3))", "print('<image>')", "x = 1\nprint(x)\nx",
]  # fmt: skip


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


async def test_every_cell_of_the_corpus_ends_alike_on_both_back_ends(urls):
    fork, jupyter = [await play(url, CELLS) for url in urls]
    differing = [
        f"{cell!r}\n  fork    {mine}\n  jupyter {theirs}"
        for cell, mine, theirs in zip(CELLS, fork, jupyter, strict=True)
        if mine != theirs
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
    fork, jupyter = [await play(url, [code]) for url in urls]
    assert fork[0][1].split() == ["first", "third", "second"]
    assert sorted(jupyter[0][1].split()) == ["first", "second", "third"]
