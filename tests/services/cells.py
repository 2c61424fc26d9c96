"""Cells that both back-ends must answer alike: each group is one session, in this order."""

GROUPS: dict[str, list[str]] = {
    "of everything": [
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
    ],
    "numbers and containers": [
        "0.1 + 0.2", "1e400", "float('nan')", "10**30", "1_000j", "True", "...", "b'bytes'", "'quote \\' and \"'", "'''a\nb'''",
        "{3, 1, 2}", "{'b', 'a', 'c'}", "frozenset('abc')", "range(5)", "(1,)", "[[1] * 30] * 10", "list(range(200))", "{n: n * n for n in range(40)}",
        "dict(a=[1, {'b': (2,)}])", "slice(1, 2)", "type(3)", "int", "print", "len", "lambda x: x", "(n for n in range(3))", "iter([1])",
        "object()", "__name__", "NotImplemented", "'a' * 500", "['x' * 50] * 5", "memoryview(b'ab')[0]", "complex(1, -0.0)", "-0.0", "round(2.675, 2)",
        "import fractions; fractions.Fraction(1, 3)", "import decimal; decimal.Decimal('0.10')", "import datetime; datetime.date(2020, 1, 2)",
        "import collections; collections.Counter('abca')", "collections.OrderedDict(a=1)", "collections.namedtuple('P', 'x y')(1, 2)", "collections.deque([1], 3)",
        "import pathlib; pathlib.Path('a') / 'b'", "import re; re.match('a', 'abc')", "import enum\nclass C(enum.Enum):\n    A = 1\nC.A", "C",
        "from dataclasses import dataclass\n@dataclass\nclass D:\n    x: int\n    y: list\nD(1, [2])",
    ],
    "statements": [
        "x = 1; y = 2", "x, y = y, x\nx", "(z := 5)", "x if x else y", "del z", "z", "global x", "import sys as s, os", "from math import *", "sqrt(16)",
        "with open('t', 'w') as f: f.write('abc')", "open('t').read()", "for i in range(3): print(i, end=' ')", "while x < 5: x += 1", "x", "i",
        "def f(a, *b, c=1, **d): return a, b, c, d", "f(1, 2, 3, c=4, e=5)", "f()", "class A:\n    x = 1\n    def m(self): return self.x\nA().m()", "A.m",
        "@property\ndef p(self): ...", "assert x", "assert not x, 'no'", "[n for n in range(5) if n % 2]", "match x:\n    case 5: print('five')\n    case _: print('other')",
        "try:\n    1/0\nfinally:\n    print('finally')", "def g():\n    yield 1\n    yield 2\nlist(g())", "async def h():\n    return 3\nawait h()", "import asyncio\nawait asyncio.sleep(0.01, 'slept')",
        "async for_ = 1", "await asyncio.gather(h(), h())", "nonlocal x", "return 5", "yield 1", "break", "continue", "pass;pass;3", "3;", "3; 4", "  3", "if 1:\n  3\n  4", "\n\n5\n\n", "# c\n6 # d", "'''doc'''",
        "\\\n7", "print(1)\n8\nprint(2)", "_", "_8 = 1", "In[-1]", "len(In) > 3", "Out", "x: int = 5", "def k(): return locals()\nk()", "exec('e = 1')\ne", "eval('e + 1')", "globals()['e']", "vars(A())",
    ],
    "event loops": [
        "import asyncio\nasync def h(n=5):\n    await asyncio.sleep(0.001)\n    return n", "asyncio.run(h())", "asyncio.get_event_loop().run_until_complete(h())", "asyncio.create_task(h()).done()", "await h()",
        "t = asyncio.create_task(h(6))", "import time; time.sleep(0.05)", "await t", "asyncio.get_running_loop() is asyncio.get_event_loop()", "asyncio.get_running_loop().is_running()", "loop = asyncio.new_event_loop()\nloop.run_until_complete(h(7))", "loop.close()",
        "def plain():\n    return asyncio.run(asyncio.wait_for(h(8), 5))\nplain()", "async def outer():\n    return asyncio.run(h(9))\nawait outer()", "asyncio.run(asyncio.gather(h(1), h(2)))", "async def both():\n    return await asyncio.gather(h(1), h(2))\nasyncio.run(both())", "async with asyncio.timeout(5):\n    print(await h())",
        "async def bad():\n    raise ValueError('inside')\nasyncio.run(bad())", "await bad()", "try:\n    await asyncio.wait_for(asyncio.sleep(5), 0.01)\nexcept TimeoutError:\n    print('late')", "async def rows():\n    for n in range(3):\n        yield n\n[n async for n in rows()]", "import threading\nr = []\nt = threading.Thread(target=lambda: r.append(asyncio.run(h(3)))); t.start(); t.join(); r",
        "import decimal; decimal.getcontext().prec = 4", "decimal.Decimal(1) / 3", "await asyncio.sleep(0)\ndecimal.getcontext().prec = 6", "decimal.Decimal(1) / 3", "import contextvars; v = contextvars.ContextVar('v', default=0); v.set(3).old_value is v", "v.get()", "import numpy as np; np.seterr(divide='raise')['divide']", "np.ones(1) / 0", "with asyncio.Runner() as runner: print(1)", "await asyncio.to_thread(lambda: 4)", "proc = await asyncio.create_subprocess_exec('echo', 'x', stdout=-1)\n(await proc.communicate())[0]", "t = asyncio.create_task(asyncio.sleep(60))", "t.cancel()", "await t",
        "%%capture out\nawait h(); print('caught')", "out.stdout", "%%capture out\nv.set(4)", "v.get()", "%%time\nawait h()", "%time asyncio.run(h())", "get_ipython().run_cell('await h()').result",
    ],
    "errors": [
        "1/0", "int('x')", "[][0]", "{}['a']", "None.x", "'a' + 1", "undefined", "import no_such_module", "from math import no_such", "open('/no/such')", "raise ValueError", "raise ValueError('a', 'b')", "raise ValueError('line\nbreak')",
        "raise ValueError('é ü 中')", "raise KeyError('k')", "raise StopIteration", "raise NotImplementedError('later')", "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise ValueError('second') from e",
        "try:\n    1/0\nexcept ZeroDivisionError:\n    raise ValueError('while')", "try:\n    1/0\nexcept ZeroDivisionError:\n    raise ValueError('alone') from None", "raise ExceptionGroup('both', [ValueError(1), TypeError(2)])",
        "def deep(n): return deep(n + 1)\ndeep(0)", "x = (", "x = )", "def", "if True\n  pass", "if True:\npass", "for", "print 1", "a b", "1 = x", "'unterminated", "'''unterminated", "\tx = 1\n        y = 2\n\tz", "f'{'", "lambda: (yield)", "del 1", "import", "x ==== 1", "0777", "x = 1e", "return",
        "class E(Exception):\n    def __str__(self): return 'own text'\nraise E", "class F(Exception):\n    pass\nraise F('f')", "import warnings; warnings.warn('careful')", "raise Warning('w')", "raise UnicodeDecodeError('utf-8', b'x', 0, 1, 'why')", "raise OSError(2, 'text', 'file')",
        "assert 0, {'a': 1}", "sum(['a'])", "len(5)", "5()", "[1, 2, 3]['a']", "'abc'.nope()", "class G:\n    def __repr__(self): raise ValueError('in repr')\nG()", "G", "class H:\n    def __repr__(self): return 5\nH()", "float('1.2.3')", "next(iter([]))", "dict([1])", "eval('1 +')", "compile('(', 'name', 'exec')",
        "def inner():\n    raise RuntimeError('inside')\ndef outer():\n    inner()\nouter()", "e = ValueError('kept')\nraise e", "raise 5", "raise", "import json; json.loads('{')", "exec('1/0')", "list(map(int, ['1', 'b']))", "raise SystemError('s')", "raise MemoryError('m')", "raise KeyboardInterrupt('k')", "raise RecursionError",
    ],
    "output": [
        "print()", "print('')", "print('a\\tb')", "print('a\\rb')", "print('\\x1b[31mred\\x1b[0m')", "print('a' * 3000)", "print(*range(10), sep=',')", "print('no newline', end='')", "print('é 中 😀')", "print('\\0')",
        "import sys; sys.stdout.write('written')", "sys.stderr.write('error')", "print('to stderr', file=sys.stderr)", "sys.stdout.flush()", "print('x', flush=True)", "sys.stdout.isatty()", "sys.stdout.encoding", "for n in range(200): print('line', n)",
        "import logging; logging.warning('logged')", "logging.getLogger('a').error('an error')", "import pprint; pprint.pprint({'a': list(range(30))})", "import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as caught:\n    print('hidden')\ncaught.getvalue()",
        "import traceback\ntry:\n    1/0\nexcept ZeroDivisionError:\n    print(traceback.format_exc().splitlines()[-1])", "print(1, 2, 3, sep='\\n')", "print({'a': 1}, [1], (2,))", "print(None)", "import threading\nt = threading.Thread(target=print, args=('from a thread',)); t.start(); t.join()",
        "import textwrap; print(textwrap.fill('word ' * 40, 30))", "'{:>8.2f}|{:<5}|{:^7}'.format(3.14159, 'a', 'b')", "f'{3.14159:.2f} {10:>5} {\"x\"!r}'", "print(f'{1_000_000:,}')", "print('a\\nb\\n')", "'a\\nb'", "print('%s %d %.1f' % ('a', 3, 2.25))", "import string; string.ascii_letters",
    ],
    "numpy and pandas": [
        "import numpy as np; np.arange(5)", "np.zeros((2, 3))", "np.eye(3, dtype=int)", "np.linspace(0, 1, 5)", "np.array([1.5, np.nan, np.inf])", "np.array(['a', 'bc'])", "np.arange(2000)", "np.arange(10000).reshape(100, 100)", "np.float32(0.1)", "np.int64(3)", "np.array([True, False])", "np.array([[1, 2], [3, 4]]) @ np.array([1, 1])",
        "np.linalg.inv(np.array([[2.0, 0], [0, 4]]))", "np.linalg.inv(np.zeros((2, 2)))", "np.array([1, 2]) + np.array([1, 2, 3])", "np.random.seed(3); np.random.rand(3)", "np.random.default_rng(5).integers(0, 9, 4)", "np.array([1, 2]).reshape(3)", "np.ones(3) / 0", "np.sqrt(-1)", "np.set_printoptions(precision=2); np.pi * np.ones(2)", "np.dtype('float32')", "np.array([1], dtype=object)", "np.polyfit([0, 1, 2], [1, 3, 5], 1).round(6)",
        "import pandas as pd; pd.Series([1, 2, 3])", "df = pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})\ndf", "df.describe()", "df.a.sum()", "df['c']", "df.T", "df.groupby('b').a.mean()", "pd.to_datetime('2020-01-02')", "df.to_csv(index=False)", "pd.DataFrame(np.arange(300).reshape(100, 3))", "df.info()", "df.loc[5]", "pd.DataFrame()", "pd.Series([], dtype=float)", "df.merge(df, on='a')",
    ],
    "sympy, scipy, scikit-image, opencv": [
        "import sympy as sp; x = sp.symbols('x'); x**2 + 1", "sp.integrate(sp.sin(x), x)", "sp.solve(x**2 - 2, x)", "sp.Rational(1, 3) + 1", "sp.Matrix([[1, 2], [3, 4]]).det()", "sp.factor(x**2 - 1)", "sp.limit(sp.sin(x) / x, x, 0)", "sp.pi.evalf(10)", "print(sp.latex(x**2 / 3))", "sp.sqrt(8)", "sp.init_printing", "sp.series(sp.exp(x), x, 0, 4)",
        "from scipy import optimize; round(optimize.brentq(lambda v: v**2 - 2, 0, 2), 6)", "from scipy import stats; round(stats.norm.cdf(1.96), 6)", "from scipy.ndimage import label; import numpy as np; label(np.eye(3))[1]", "from scipy.spatial import distance; distance.euclidean([0, 0], [3, 4])",
        "import cv2; a = np.array(image_1); cv2.cvtColor(a, cv2.COLOR_RGB2GRAY).shape", "cv2.resize(a, (10, 10)).shape", "cv2.resize(a, (0, 0))", "cv2.Canny(a, 50, 100).sum() >= 0", "cv2.imread('/no/such') is None", "cv2.imshow('w', a)", "from skimage import measure, filters, color; color.rgb2gray(a).shape", "filters.threshold_otsu(np.arange(100).reshape(10, 10))", "measure.label(np.eye(3)).max()", "cv2.imwrite('o.png', a)", "from PIL import Image; Image.open('o.png').size",
    ],
    "pictures": [
        "image_1", "image_1.size, image_1.mode", "image_1.crop((0, 0, 20, 10))", "image_1.rotate(45, expand=True)", "image_1.convert('L')", "image_1.convert('P')", "image_1.convert('1')", "image_1.convert('CMYK')", "image_1.convert('F')", "image_1.convert('I')", "image_1.convert('LA')", "image_1.convert('RGBA')", "image_1.getpixel((1, 1))", "image_1.getpixel((999, 1))", "image_1.resize((0, 0))", "image_1.crop((5, 5, 5, 5))",
        "display(image_1, image_1.crop((0, 0, 5, 5)))", "[image_1]", "image_1, image_1", "x = image_1", "image_1;", "None if image_1 else 1", "from IPython.display import display, Image as Raw, HTML, Markdown, SVG, clear_output", "HTML('<b>x</b>')", "Markdown('# x')", "display('text')", "display({'a': 1})", "display(1, 2)", "Raw(data=open('s.png', 'rb').read()) if False else 0", "image_1.save('s.png')", "Raw('s.png')", "Raw(filename='s.png', width=20)", "display(Raw('s.png'))", "from PIL import Image; Image.open('s.png')", "Image.open('none.png')", "import numpy as np; Image.fromarray(np.zeros((4, 6, 3), np.uint8))", "Image.fromarray(np.zeros((4, 6), np.float32))", "Image.fromarray(np.zeros((2, 2, 2)))", "Image.new('RGB', (300, 2))", "from PIL import ImageDraw; d = ImageDraw.Draw(image_1); d.rectangle((1, 1, 5, 5), fill=(1, 2, 3)); image_1.getpixel((2, 2))", "image_1.thumbnail((4, 4)); image_1.size", "image_2", "for _ in range(3): display(image_1)", "display()", "image_1.histogram()[:3]", "bool(image_1)", "image_1 == image_1.copy()",
    ],
    "figures": [
        "import matplotlib.pyplot as plt; plt.plot([1, 2])", "plt.plot([1, 2]);", "plt.plot([1, 2]); plt.show()", "plt.show()", "plt.figure()", "fig, ax = plt.subplots(1, 2); ax[0].plot([1])", "fig", "fig; 3", "plt.figure(figsize=(3, 2)); plt.bar([1, 2], [3, 4]); plt.title('t')\nplt.show()\nprint('after')", "plt.imshow(image_1); plt.axis('off'); plt.show()", "for n in range(3):\n    plt.figure(figsize=(1, 1)); plt.plot([n])", "plt.close('all')", "plt.plot([1]); plt.close()", "plt.savefig('f.png'); plt.close(); __import__('os').path.exists('f.png')", "plt.hist([1, 1, 2])", "plt.gcf()", "plt.plot([1], 'nonsense')", "plt.close('all')", "plt.xlabel('only')", "plt.subplot(2, 2, 1); plt.imshow([[1, 2], [3, 4]]); plt.tight_layout()", "fig = plt.figure(); plt.close(fig); fig", "%matplotlib inline", "plt.style.use('ggplot'); plt.plot([1]); plt.show()", "plt.plot([1, 2], [1]); plt.show()", "plt.close('all')", "import matplotlib; matplotlib.get_backend()", "plt.ion()", "plt.pause(0.01)", "plt.figure(dpi=50); plt.text(0, 0, 'é 中')\nplt.show()",
    ],
    "magics and the shell": [
        "%pwd" if False else "0", "%%time\n5", "%time 6", "%%capture out\nprint('x')", "out.stdout", "%%writefile w.txt\nabc", "open('w.txt').read()", "!echo hello", "x = !echo a; echo b\nx", "!exit 3", "_exit_code", "%env NO_SUCH", "%who", "a = 1\n%who_ls", "%reset -f", "a", "%lsmagic_nope", "%%nope\nx", "%timeit -n1 -r1 -q 1", "%run nothing.py", "%cd ..", "%cd -q /", "import os; os.getcwd() != '/'", "%load_ext nothing", "%config InlineBackend.figure_format", "%alias_magic t time", "%precision 3", "3.14159", "%xmode Plain", "1/0", "%xmode Context", "?", "len?", "%history", "%%bash\necho from bash", "%%html\n<b>x</b>", "%%python\nprint(1)", "get_ipython().run_line_magic('time', '7')", "import subprocess; subprocess.run(['sh', '-c', 'echo out; exit 2'], capture_output=True)", "subprocess.check_output(['echo', 'x'])", "subprocess.run(['no-such-program'])", "os.system('exit 3') >> 8", "os.getpid() > 0", "import time; time.sleep(0.01)", "import platform; platform.python_version()", "os.environ.get('HOME') == os.getcwd() or True", "sorted(os.listdir('.'))[:2]", "input()", "import getpass; getpass.getpass()", "import pdb; pdb.set_trace()", "help(len)", "import this", "__file__", "sys", "import sys; len(sys.argv) > 0", "sys.exit()", "sys.exit(1)", "sys.exit('text')", "x = 5",
    ],
}  # fmt: skip

_USAGE = "a magic used wrongly is an error here; ipykernel writes it to stderr and calls the cell fine"
_PAGER = "help is shown as text here; ipykernel sends it to a pager, which is no part of a cell's output"
DIFFERENT = {
    "raise ExceptionGroup('both', [ValueError(1), TypeError(2)])": "an error here; ipykernel prints it and calls the cell fine",
    "cv2.imread('/no/such') is None": "what C code writes is part of this cell here; with ipykernel it may come later or not at all",
    "%env NO_SUCH": _USAGE,
    "%lsmagic_nope": _USAGE,
    "%%nope\nx": _USAGE,
    "?": _PAGER,
    "len?": _PAGER,
    "import pdb; pdb.set_trace()": "ipykernel's debugger prints colours",
}
"""Cells that end differently, and why."""
