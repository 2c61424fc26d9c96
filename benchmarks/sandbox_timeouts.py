"""How often a session keeps its variables when a cell is stopped for its time: endless cells, in eight libraries.

    python -m benchmarks.sandbox_timeouts [--cells 200] [--backend fork] [--seed 0] [--at-once 2]

Each cell runs in a session that holds a value, is stopped between 0.3 and 1.5 s after it began, and the value is asked for.
Prints the share that is still there, by library and back-end. Needs Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from code_sandbox.client import SandboxClient
from serving.processes import redis_server, sandbox_server

_LIBRARIES = {
    "numpy": (
        "import numpy\nx = numpy.random.rand(900, 900)\nwhile True: numpy.linalg.eig(x)",
        "import numpy\nx = numpy.random.rand(3000, 3000)\nwhile True: x = x @ x / 3000",
        "import numpy\nwhile True: numpy.sort(numpy.random.rand(5_000_000))",
    ),
    "pandas": (
        "import pandas\nf = pandas.DataFrame({'a': range(10**7)})\nf.a.apply(lambda v: v ** 0.5)",
        "import pandas\nf = pandas.DataFrame({'a': range(10**6)})\nwhile True: f = f.merge(f, on='a')[['a']]",
        "import pandas\nf = pandas.DataFrame({'a': [str(n) for n in range(10**6)]})\nwhile True: f.groupby('a').size()",
    ),
    "PIL": (
        "from PIL import Image\ni = Image.new('RGB', (6000, 6000))\nwhile True: i = i.resize((6000, 6000), Image.LANCZOS)",
        "from PIL import Image, ImageFilter as f\ni = Image.new('L', (3000, 99))\nwhile True: i.filter(f.GaussianBlur(20))",
        "from PIL import Image\ni = Image.new('RGB', (3000, 3000))\nwhile True: i = i.rotate(7)",
    ),
    "matplotlib": (
        "import matplotlib.pyplot as plt\nwhile True:\n    plt.plot(range(200_000)); plt.savefig('a.png'); plt.close()",
        "import matplotlib.pyplot as plt, numpy\nwhile True:\n    plt.imshow(numpy.random.rand(3000, 3000)); plt.show()",
        "import matplotlib.pyplot as plt\nplt.scatter(range(10**6), range(10**6))\nwhile True: plt.gcf().canvas.draw()",
    ),
    "sympy": (
        "from sympy import *\nx = symbols('x')\nwhile True: integrate(sin(x)**9 * exp(x) / (x**5 + 1), x)",
        "from sympy import *\nwhile True: factorint(10**60 + 7)",
        "from sympy import *\nx, y = symbols('x y')\nwhile True: expand((x + y + 1)**200)",
    ),
    "cv2": (
        "import cv2, numpy\ni = numpy.zeros((4000, 4000, 3), 'uint8')\nwhile True: i = cv2.GaussianBlur(i, (51, 51), 0)",
        "import cv2, numpy\ni = numpy.random.randint(0, 255, (3000, 3000), 'uint8')\nwhile True: cv2.Canny(i, 50, 100)",
        "import cv2, numpy\ni = numpy.zeros((1000, 1000, 3), 'uint8')\nwhile True: cv2.fastNlMeansDenoisingColored(i)",
    ),
    "subprocess": (
        "import subprocess\nsubprocess.run(['sleep', '60'])",
        "!sleep 60",
        "import subprocess\nsubprocess.run('while true; do :; done', shell=True)",
    ),
    "waiting": (
        "import time\ntime.sleep(60)",
        "import threading\nthreading.Event().wait()",
        "while True:\n    try:\n        sum(range(10**6))\n    except ValueError:\n        pass",
    ),
}


async def stopped_cells(url: str, cells: int, rng: random.Random, at_once: int) -> tuple[Counter[str], Counter[str]]:
    """(cells that were stopped, those of them behind which the value was still there), by library."""
    tried, kept, left = Counter[str](), Counter[str](), asyncio.Semaphore(at_once)

    async def one(library: str, code: str, timeout_s: float) -> None:
        async with left:
            session = await client.open()
            await session.execute("kept = 41")
            result = await session.execute(code, timeout_s=timeout_s)
            if result.status == "timeout":
                tried[library] += 1
                again = await session.execute("kept + 1")
                kept[library] += again.result == "42" and not result.state_lost
            await session.close()

    names = list(_LIBRARIES)
    async with SandboxClient(url) as client, asyncio.TaskGroup() as group:
        for number in range(cells):
            library = names[number % len(names)]
            group.create_task(one(library, rng.choice(_LIBRARIES[library]), rng.uniform(0.3, 1.5)))
    return tried, kept


def report(backend: str, tried: Counter[str], kept: Counter[str], seconds: float) -> Sequence[str]:
    """Lines for people."""
    lines = [f"{backend}: {sum(kept.values())} of {sum(tried.values())} kept their variables, in {seconds:.0f} s"]
    return [*lines, *(f"  {name:<12} {kept[name]:>3} of {tried[name]:>3}" for name in _LIBRARIES)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--backend", action="append", choices=("fork", "jupyter"), help="both by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2, help="cells that run at the same time")
    options = parser.parse_args()
    for backend in options.backend or ("fork", "jupyter"):
        with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as redis_url:
            arguments = ("--require-level", "0", "--backend", backend)
            with sandbox_server(Path(folder) / backend, redis_url, arguments=arguments) as url:
                started = time.monotonic()
                tried, kept = asyncio.run(stopped_cells(url, options.cells, random.Random(options.seed), options.at_once))
                print("\n".join(report(backend, tried, kept, time.monotonic() - started)))


if __name__ == "__main__":
    main()
