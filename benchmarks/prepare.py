"""What it costs to prepare RL rows: time, memory, and what a second run does; beside it the copying of the same bytes.

    python -m benchmarks.prepare [--gib 1] [--image-kib 512] [--quick]

Writes a parquet file of images in one row group (held in memory until then), prepares it in a process of its own, and
removes both. The images are JPEGs of a photograph's size; they are decoded unless `--quick` is given, which believes a JPEG
that ends as one.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy
from PIL import Image


def photo(rng: numpy.random.Generator, kib: int) -> bytes:
    """A JPEG of about that many KiB, whose bytes are like no other's."""
    side = int((kib << 10) ** 0.5 * 1.35)
    coarse = Image.fromarray(rng.integers(0, 255, (side // 3, side // 3, 3), dtype=numpy.uint8))
    buffer = io.BytesIO()
    coarse.resize((side, side), Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def write(path: Path, num_bytes: int, kib: int) -> int:
    """One row group of rows; how many bytes of images it holds."""
    import pyarrow
    import pyarrow.parquet

    rng = numpy.random.default_rng(0)
    base = [photo(rng, kib) for _ in range(16)]
    written = 0

    def batches() -> Iterator[Any]:
        nonlocal written
        number = 0
        while written < num_bytes:
            rows = []
            for _ in range(64):
                # A comment behind the picture makes it a file of its own, and costs no time.
                data = base[number % 16] + number.to_bytes(8, "big") + b"\xff\xd9"
                written += len(data)
                rows.append({
                    "data_source": "perception",
                    "prompt": [{"role": "user", "content": f"<image>What colour is thing {number}?"}],
                    "images": [{"bytes": data, "path": None}],
                    "reward_model": {"style": "rule", "ground_truth": "red"},
                    "extra_info": {"index": str(number), "question": "What colour?"},
                })  # fmt: skip
                number += 1
            yield pyarrow.RecordBatch.from_pylist(rows)

    table = pyarrow.Table.from_batches(list(batches()))
    pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=False, row_group_size=table.num_rows)
    return written


def prepare(source: Path, store: Path, quick: bool) -> tuple[float, int]:
    """(seconds, peak MiB) of one run."""
    command = [sys.executable, "-m", "deepeyes.cli", "data", "prepare", "rl", str(source), "--out", str(store)]
    started = time.perf_counter()
    with subprocess.Popen([*command, *(["--quick"] if quick else [])], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    return time.perf_counter() - started, usage.ru_maxrss >> 10


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0, help="of images")
    parser.add_argument("--image-kib", type=int, default=512)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        source, store = Path(directory) / "rows.parquet", Path(directory) / "store"
        # In a process of its own: what a child of a large process takes counts as at least as much.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            size = pool.submit(write, source, int(options.gib * (1 << 30)), options.image_kib).result()
        started = time.perf_counter()
        shutil.copyfile(source, Path(directory) / "copy")
        copied_s = time.perf_counter() - started
        (Path(directory) / "copy").unlink()
        print("| what | s | MiB/s | peak MiB |\n| --- | --: | --: | --: |")
        print(f"| a copy of the file, {size / 2**30:.1f} GiB | {copied_s:.1f} | {size / 2**20 / copied_s:.0f} | |")
        for what in ("prepare", "prepare again"):
            seconds, peak = prepare(source, store, options.quick)
            print(f"| {what} | {seconds:.1f} | {size / 2**20 / seconds:.0f} | {peak} |", flush=True)


if __name__ == "__main__":
    main()
