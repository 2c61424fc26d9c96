"""What it costs to prepare RL rows: time, memory, and what a second run does; beside it the least that it could cost.

    python -m benchmarks.prepare [--gib 1] [--image-kib 512] [--quick] [--folder FOLDER]
    python -m benchmarks.prepare --names 82580

Writes a parquet file of images in one row group (held in memory until then), prepares it in a process of its own, and
removes both; FOLDER keeps the parquet file for the next time. The images are JPEGs of a photograph's size; they are decoded
unless `--quick` is given, which believes a JPEG that ends as one. The least: the file read in blocks of an image's size,
each hashed and written to a file of its own, in one thread, and the disk settled.

With `--names` it measures instead how RL opens and reads a prepared set of so many rows.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import resource
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

from agent.files import settle_disk
from agent.image_library import open_library
from agent.images import ImageFile
from data import store_rows
from reinforcement_learning.row_files import RowStore
from reinforcement_learning.rows import RowOptions


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


def least(source: Path, folder: Path, kib: int) -> tuple[float, float]:
    """(seconds, seconds of processor) of reading, hashing and writing the same bytes, and nothing else."""
    folder.mkdir()
    started, cpu_s = time.perf_counter(), time.process_time()
    with source.open("rb") as file:
        while block := file.read(kib << 10):
            (folder / hashlib.sha256(block).hexdigest()).write_bytes(block)
    settle_disk(folder)
    found = time.perf_counter() - started, time.process_time() - cpu_s
    shutil.rmtree(folder)
    return found


def prepare(source: Path, store: Path, quick: bool) -> tuple[float, float, int]:
    """(seconds, seconds of processor, peak MiB) of one run."""
    command = [sys.executable, "-m", "deepeyes.cli", "data", "prepare", "rl", str(source), "--out", str(store)]
    started = time.perf_counter()
    with subprocess.Popen([*command, *(["--quick"] if quick else [])], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10


def write_names(store: Path, num_rows: int) -> Path:
    """A prepared set of so many rows, of which many share an image."""
    library, rng = open_library(store), numpy.random.default_rng(0)
    pixels = rng.integers(0, 255, (1500, 24, 24, 3), dtype=numpy.uint8)
    names = [library.put(ImageFile.from_pil(Image.fromarray(one)).data, durable=False) for one in pixels]
    system = "You think, write code, look at images and answer. " * 40
    rows = (
        store_rows.record(
            data_source="perception",
            messages=[{"role": "system", "content": system}, {"role": "user", "content": f"<image>What is thing {number}?"}],
            images=[names[number % len(names)]],
            image_sizes=[[24, 24]],
            gold=["red"],
            extra={"index": str(number), "question": f"What is thing {number}?"},
            source="made",
            licence="mit",
            group="perception",
        )
        for number in range(num_rows)
    )
    path = store / "sets/rl/rl.parquet"
    store_rows.write_rows(path, rows, store_rows.schema())
    return path


def measure_names(path: Path) -> None:
    """Print how RL opens and reads a set; in a process of its own."""
    store, what = None, ("first opening", "opening again")
    print("| what | s | peak MiB |\n| --- | --: | --: |")
    for name in what:
        started = time.perf_counter()
        store = RowStore(path, RowOptions())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"| {name} of {len(store):,} rows | {time.perf_counter() - started:.2f} | {peak} |")
    assert store is not None
    started = time.perf_counter()
    for number in range(len(store)):
        _ = store[number]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"| every row with its image | {time.perf_counter() - started:.1f} | {peak} |", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0, help="of images")
    parser.add_argument("--image-kib", type=int, default=512)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--folder", type=Path, help="keeps the parquet file for the next time")
    parser.add_argument("--names", type=int, metavar="ROWS", help="measure the reading of a prepared set instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        # In a process of its own: what a child of a large process takes counts as at least as much.
        if options.names:
            os.environ["DEEPEYES_CACHE"] = f"{directory}/cache"
            path = write_names(Path(directory) / "store", options.names)
            pool.submit(measure_names, path).result()
            return
        folder = options.folder or Path(directory)
        source = folder / f"rows-{options.gib:g}-{options.image_kib}.parquet"
        if not source.exists():
            folder.mkdir(parents=True, exist_ok=True)
            pool.submit(write, source, int(options.gib * (1 << 30)), options.image_kib).result()
        mib = source.stat().st_size / 2**20
        print("| what | s | MiB/s | MiB a processor second | peak MiB |\n| --- | --: | --: | --: | --: |")
        seconds, cpu_s = least(source, Path(directory) / "least", options.image_kib)
        print(f"| the least, {mib / 1024:.1f} GiB | {seconds:.1f} | {mib / seconds:.0f} | {mib / cpu_s:.0f} | |", flush=True)
        for what in ("prepare", "prepare again"):
            seconds, cpu_s, peak = prepare(source, Path(directory) / "store", options.quick)
            print(f"| {what} | {seconds:.1f} | {mib / seconds:.0f} | {mib / cpu_s:.0f} | {peak} |", flush=True)


if __name__ == "__main__":
    main()
