"""A session is a notebook as people know it: nothing that a cell shows vanishes without a word, on either back-end."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from code_sandbox.client import SandboxClient
from code_sandbox.server import fonts
from serving.processes import sandbox_server
from tests.conftest import png

pytestmark = pytest.mark.services


@pytest.fixture
async def session(any_sandbox_url):
    async with SandboxClient(any_sandbox_url) as client:
        session = await client.open([png(64, 48)])
        yield session
        await session.close()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("!echo hello", "hello"),
        ("get_ipython().system('echo hello')", "hello"),
        ("word = 'hello'\n!echo {word}", "hello"),
        ("%%bash\necho hello", "hello"),
        ("%pip install seaborn", "nothing can be installed here"),
        ("!python3 -m pip install seaborn", "nothing can be installed here"),
        ("import pandas\ndisplay(pandas.DataFrame({'column': [41]}))", "column"),
        ("from IPython.display import Markdown\ndisplay(Markdown('# Title'))", "# Title"),
        ("from IPython.display import SVG\ndisplay(SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))", "image/svg+xml cannot be shown"),
        ("image_1.crop((50, 50, 50, 80))", "an image of 0x30 pixels cannot be shown"),
        ("import argparse; print(argparse.ArgumentParser().parse_args())", "Namespace()"),
        ("print('\\x1b[31mred\\x1b[0m')", "red"),
        ("image_1.save('/tmp/crop.png'); print(__import__('os').path.getsize('/tmp/crop.png') > 0)", "True"),
        ("import multiprocessing\np = multiprocessing.get_context('spawn').Process(target=len, args=('',)); p.start(); p.join(); print(p.exitcode)", "0"),
        ("from IPython.display import SVG\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')", "image/svg+xml cannot be shown"),
        ("image_1.save('a.gif')\nfrom IPython.display import Image\nImage('a.gif')", "image/gif cannot be shown"),
        ("from IPython.display import Audio\nAudio(data=[0.0, 0.1], rate=8000)", "cannot be shown"),
        ("import subprocess, sys\nsubprocess.run(['echo', 'hello'], stdout=sys.stdout); sys.stdout.fileno()", "hello"),
        ("import sys, subprocess\nsubprocess.run('echo hello >&2', shell=True, stderr=sys.stderr)", "hello"),
        ("import faulthandler, sys\nfaulthandler.enable(); print(sys.stdout.isatty())", "False"),
        ("import sys\nsys.stdout.reconfigure(encoding='utf-8'); print('hello')", "hello"),
        ("import io, sys\nsys.stdout.buffer.write('热'.encode()); print()\nsys.stdout.write('x')", "热"),
        ("import gc, io, sys\nwrapped = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8'); print('hel', end='', file=wrapped, flush=True)\ndel wrapped; gc.collect(); print('lo')", "hello"),
        ("print('a\\ud800b')", "a?b"),
        ("import multiprocessing\np = multiprocessing.Process(target=print, args=('hello',)); p.start(); p.join()", "hello"),
        ("import multiprocessing\nwith multiprocessing.Pool(2) as pool: pool.map(print, ['hello'])", "hello"),
        ("import os\nif os.fork() == 0:\n    print('hello', end='')\n    os._exit(0)\n_ = os.wait()", "hello"),
        ("%config InlineBackend.figure_formats = ['svg']\nimport matplotlib.pyplot as plt; plt.plot([1]); plt.show()", "image/svg+xml cannot be shown"),
        ("open('own.py', 'w').write('value = 41')\nimport own\nprint(own.value)", "41"),
    ],
)  # fmt: skip
async def test_what_a_cell_shows_is_said_or_why_not(session, code, said):
    result = await session.execute(code, timeout_s=30)
    assert result.status == "ok", result
    assert said in result.stdout + result.stderr
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import matplotlib; matplotlib.use('Agg')\nimport matplotlib.pyplot as plt; plt.plot([1]); plt.show()",
        "%matplotlib notebook\nimport matplotlib.pyplot as plt; plt.plot([1]); plt.show()",
        "%matplotlib qt\nimport matplotlib.pyplot as plt; plt.plot([1]); plt.show()",
        "import matplotlib.pyplot as plt; plt.switch_backend('agg'); plt.plot([1]); plt.show()",
        "image_1.show()",
        "from PIL import Image; import numpy; Image.fromarray(numpy.ones((9, 9), numpy.float32))",
        "from PIL import Image; import numpy; Image.fromarray(numpy.ones((9, 9), numpy.uint16))",
    ],
)
async def test_pictures_appear_whichever_way_they_are_shown(session, code):
    result = await session.execute(code, timeout_s=30)
    assert (result.status, len(result.images)) == ("ok", 1), result


async def test_the_end_of_a_long_output_is_kept_progress_is_its_last_state_and_repetition_a_number(session):
    rows = await session.execute("for i in range(3000): print('row', i, i * i)\nprint('FINAL ANSWER: 1234')")
    assert rows.stdout.startswith("row 0 0\n")
    assert "[output cut at 20,000 characters]" in rows.stdout
    assert "FINAL ANSWER: 1234" in rows.stdout
    steps = await session.execute("import sys\nfor i in range(2000): sys.stdout.write(f'\\rstep {i}')")
    assert steps.stdout.strip() == "step 1999"
    same = await session.execute("for i in range(300): print('findfont: not found')")
    assert same.stdout == "findfont: not found\n[the line above 300 times]\n"


@pytest.mark.parametrize(
    "code",
    [
        "import time\ntime.sleep(60)",
        "import subprocess\nsubprocess.run(['sleep', '60'])",
        "!sleep 60",
        "import numpy\nwhile True: numpy.ones((300, 300)) @ numpy.ones((300, 300))",
        "import pandas\nwhile True: pandas.Series(range(10**6)).apply(lambda value: value + 1)",
        "from PIL import Image\nwhile True: image_1.resize((900, 900))",
        "import matplotlib.pyplot as plt\nwhile True:\n    plt.figure(); plt.plot([1]); plt.savefig('f.png'); plt.close()",
        "import sympy\nx = sympy.symbols('x')\nwhile True: sympy.expand((x + 1) ** 30)",
    ],
)
async def test_a_time_out_keeps_the_variables_in_every_library(session, code):
    await session.execute("kept = 41")
    result = await session.execute(code, timeout_s=1)
    assert (result.status, result.state_lost) == ("timeout", False)
    assert (await session.execute("kept")).result == "41"


async def test_a_child_that_goes_on_behind_a_fork_ends_with_its_cell_and_the_session_lives(session):
    await session.execute("kept = 41")
    result = await session.execute("import os\npid = os.fork()\nprint('both', pid == 0)\nif pid: _ = os.waitpid(pid, 0)", timeout_s=20)
    assert (result.status, result.stdout.count("both")) == ("ok", 2)
    assert (await session.execute("kept + 1")).result == "42"


@pytest.mark.parametrize("form", ["retina", "jpeg", "png"])
async def test_figures_of_other_formats_are_shown(session, form):
    result = await session.execute(
        f"%config InlineBackend.figure_formats = [{form!r}]\nimport matplotlib.pyplot as plt; plt.plot([1]); plt.show()", timeout_s=30
    )
    assert (result.status, len(result.images), result.stderr) == ("ok", 1, "")


_GLYPHS = """
import io, matplotlib.pyplot as plt, numpy
from PIL import Image
def drawn(text, **more):
    figure = plt.figure(figsize=(1, 1), dpi=100)
    figure.text(0.1, 0.3, text, fontsize=40, **more)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return numpy.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("L"))
box = drawn("\\ue123")
"""


@pytest.mark.parametrize(
    "setting",
    ["", "plt.rcParams['font.sans-serif'] = ['SimHei']", "plt.rcParams['font.family'] = 'Microsoft YaHei'", "plt.rcdefaults()",
     "plt.rcParams['font.sans-serif'] = ['SimHei', 'Arial']; plt.rcParams['axes.unicode_minus'] = False"],
)  # fmt: skip
async def test_chinese_text_in_a_figure_has_glyphs_of_its_own(session, setting):
    if fonts.found() is None:
        pytest.skip("needs a CJK font of this machine: apt-get install fonts-wqy-microhei")
    plain = await session.execute("import matplotlib.pyplot as plt\nplt.title('中文', fontweight='bold'); plt.plot([1]); plt.show()")
    assert (len(plain.images), plain.stderr) == (1, "")
    assert "missing from font" in (await session.execute(_GLYPHS, timeout_s=60)).stderr
    result = await session.execute(
        setting + "\n[bool((drawn(one) != drawn(other)).any()) for one, other in ('中文', '日本', '한국')], "
        "bool((drawn('中') == box).all())",
        timeout_s=60,
    )
    assert (result.result, result.stderr) == ("([True, True, True], False)", "")


async def test_an_interrupt_that_python_loses_is_sent_again(session):
    await session.execute("kept = 41")
    # Whatever is raised while an object is tidied up is printed and forgotten.
    program = "import time\nclass A:\n    def __del__(self): time.sleep(1)\nA()\nwhile True: time.sleep(0.01)"
    result = await session.execute(program, timeout_s=0.5)
    assert (result.status, result.state_lost) == ("timeout", False)
    assert (await session.execute("kept")).result == "41"


async def test_what_a_time_out_has_ended_does_not_go_on_in_a_later_cell(session):
    cut = await session.execute("import asyncio\nfinished = False\nawait asyncio.sleep(1)\nfinished = True", timeout_s=0.3)
    assert (cut.status, cut.state_lost) == ("timeout", False)
    assert (await session.execute("await asyncio.sleep(1.5)\nfinished", timeout_s=10)).result == "False"


async def test_what_a_cell_has_begun_in_the_background_goes_on(session):
    await session.execute("import asyncio, time\nasync def after(s):\n    await asyncio.sleep(s)\n    return 41")
    await session.execute("task = asyncio.create_task(after(0.05))")
    await session.execute("time.sleep(0.2)")
    await session.execute("pass")
    assert (await session.execute("task.done() and task.result()")).result == "41"
    assert (await session.execute("asyncio.run(after(0)), asyncio.get_event_loop().run_until_complete(after(0))")).result == "(41, 41)"


@pytest.mark.parametrize(
    "program",
    ["def deep(n):\n    return deep(n + 1)\ndeep(0)", "class A:\n    def __repr__(self):\n        return repr(self)\nA()"],
)
async def test_an_endless_recursion_is_told_at_once_by_both_ends_of_its_traceback(session, program):
    result = await session.execute(program, timeout_s=20)
    assert (result.status, result.error.name) == ("error", "RecursionError")
    assert "calls in the middle are left out]" in result.stderr
    assert result.error.traceback.count("Cell In") >= 3


_IN_TMP = [
    ("image_1.save('/tmp/crop.png'); print(__import__('os').path.getsize('/tmp/crop.png') > 0)", "True"),
    ("import cv2, numpy\nprint(cv2.imwrite('/tmp/a.png', numpy.zeros((4, 6, 3), 'uint8')), cv2.imread('/tmp/a.png').shape)", "True (4, 6, 3)"),
    ("from pathlib import Path\nPath('/tmp/d/e').mkdir(parents=True); Path('/tmp/d/e/f').write_text('x'); print(*Path('/tmp/d').rglob('*'))", "/tmp/d/e /tmp/d/e/f"),
    ("import shutil, os\nshutil.copyfile('/tmp/d/e/f', '/tmp/d/g'); shutil.move('/tmp/d', '/tmp/h'); print(sorted(os.listdir('/tmp/h')), os.path.exists('/tmp/d'))", "['e', 'g'] False"),
    ("import numpy\nnumpy.save('/tmp/n.npy', numpy.arange(3)); numpy.arange(3).tofile('/tmp/n.bin'); print(numpy.load('/tmp/n.npy'), numpy.fromfile('/tmp/n.bin', int))", "[0 1 2] [0 1 2]"),
    ("import pandas\npandas.DataFrame({'a': [1]}).to_csv('/tmp/t.csv'); print(pandas.read_csv('/tmp/t.csv').a.sum())", "1"),
    ("import matplotlib.pyplot as plt\nplt.plot([1]); plt.savefig(fname='/tmp/f.png'); plt.close(); print(os.stat('/tmp/f.png').st_size > 0)", "True"),
    ("import sqlite3\nwith sqlite3.connect('/tmp/a.db') as db: print(db.execute('select 41').fetchone())", "(41,)"),
    ("import zipfile\nwith zipfile.ZipFile('/tmp/a.zip', 'w') as z: z.writestr('a', 'b')\nprint(zipfile.ZipFile('/tmp/a.zip').namelist())", "['a']"),
    ("import tempfile\nwith tempfile.NamedTemporaryFile(dir='/tmp') as f: print(os.path.exists(f.name))", "True"),
    ("!echo hello > /tmp/x && cat /tmp/x", "hello"),
    ("%%bash\ncat /tmp/x; echo more >> /tmp/x; ls -d /tmp", "hello"),
    ("import subprocess\nprint(subprocess.run(['cat', '/tmp/x'], capture_output=True, text=True).stdout)", "more"),
    ("print(subprocess.run('wc -l < /tmp/x', shell=True, capture_output=True, text=True).stdout)", "2"),
    ("print(os.system('test -e /tmp/x'), os.popen('cat /tmp/x').read())", "0 hello"),
    ("%cd /tmp\nprint(open('x').read())", "hello"),
    ("open(file='/tmp/x', mode='a').close(); os.rename('/tmp/x', '/tmp/y'); os.remove('/tmp/y'); print('x' in os.listdir('/tmp'))", "False"),
    ("try:\n    open('/tmp/none')\nexcept OSError as error:\n    print(error)", "No such file or directory: '/tmp/none'"),
]  # fmt: skip


async def _check_tmp(session, other):
    for code, said in _IN_TMP:
        result = await session.execute(code, timeout_s=30)
        assert result.status == "ok", result
        assert said in result.stdout, (code, result)
    assert (await other.execute("import os; 'crop.png' in os.listdir('/tmp')")).result == "False"


async def test_tmp_is_a_folder_of_the_sessions_own(session, any_sandbox_url):
    async with SandboxClient(any_sandbox_url) as client:
        other = await client.open([])
        await _check_tmp(session, other)
        await other.close()


@pytest.mark.parametrize("backend", ["fork", "jupyter"])
async def test_tmp_can_be_written_to_where_what_python_needs_lies_below_it(redis_url, tmp_path, monkeypatch, backend):
    with tempfile.TemporaryDirectory(dir="/tmp") as needed:
        library = Path(needed, "lib", "kept.txt")
        library.parent.mkdir()
        library.write_text("kept")
        Path(needed).chmod(0o755)
        monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
        arguments = ("--require-level", "0", "--backend", backend, "--spare-kernels", "1")
        with sandbox_server(tmp_path, redis_url, arguments=arguments) as url:
            async with SandboxClient(url) as client:
                session, other = [await client.open([png(30, 20)]) for _ in range(2)]
                await _check_tmp(session, other)
                read = await session.execute(f"open({str(library)!r}).read()")
                written = await session.execute(f"open({str(library)!r}, 'w')")
    assert read.result == "'kept'"
    assert written.status == "error"


@pytest.mark.parametrize("backend", ["fork", "jupyter"])
async def test_without_namespaces_cells_run_and_tmp_is_a_folder_of_the_sessions_own(redis_url, tmp_path, backend):
    arguments = ("--require-level", "0", "--backend", backend, "--without", "namespaces", "--spare-kernels", "1")
    before = set(Path("/tmp").iterdir())
    with sandbox_server(tmp_path, redis_url, arguments=arguments) as url:
        async with SandboxClient(url) as client:
            session, other = [await client.open([png(30, 20)]) for _ in range(2)]
            shown = await session.execute("image_1.crop((0, 0, 9, 9))")
            await _check_tmp(session, other)
            made = {path.name for path in set(Path("/tmp").iterdir()) - before}
    assert [(image.width_px, image.height_px) for image in shown.images] == [(9, 9)]
    assert not made & {"crop.png", "a.png", "d", "x", "y"}
