"""Small sources, made by the toy task's own writer."""

import asyncio
import contextlib
import io
import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from curation.folders import StepFolder
from curation.settings import read_curation
from curation.work import run_steps
from tests.conftest import png


def photo(seed, *, size=(96, 96), quality=90, fmt="JPEG"):
    """Something that is like no other seed's, at any size and compression."""
    rng = random.Random(seed)
    small = Image.frombytes("RGB", (12, 12), rng.randbytes(12 * 12 * 3))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, fmt, quality=quality)
    return buffer.getvalue()


def row(number, *, question=None, gold="red", image=None, source="tiles", prompt=None, **more):
    question = question or f"What colour is the thing numbered {number} on the table?"
    images = [] if image is False else [{"bytes": image or photo(number), "path": None}]
    return {
        "data_source": source,
        "prompt": prompt or [{"role": "user", "content": "<image>\n" * len(images) + question}],
        "images": images,
        "reward_model": {"style": "rule", "ground_truth": gold},
        "extra_info": {"index": f"i{number}", "question": question},
    } | more


class Bench:
    """A folder with sources and a YAML file."""

    def __init__(self, directory):
        self.directory = directory
        self.lines = []

    def source(self, name, rows, group="perception"):
        path = self.directory / f"{name}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return {"name": name, "path": str(path), "licence": "mit", "group": group}

    def write(self, sources, steps, **more):
        content = {
            "name": "toy", "store": str(self.directory / "store"), "run": str(self.directory / "run"),
            "sources": sources, "steps": steps,
        } | more  # fmt: skip
        path = self.directory / "toy.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    def run(self, sources, steps, *, workers=1, **more):
        curation = read_curation(self.write(sources, steps, **more))
        self.lines = []
        return asyncio.run(run_steps(curation, workers=workers, say=self.lines.append))

    def step(self, name):
        return StepFolder(self.directory / "run" / name)

    def reasons(self, name):
        return {row.extra.get("index", row.key): reason for row, reason in self.step(name).dropped()}

    def kept(self, name):
        return [row.extra["index"] for row in self.step(name).kept()]

    def manifest(self):
        return json.loads((self.directory / "store/sets/toy/manifest.json").read_text())


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture
def httpserver_of():
    """Starts a server that gives one answer to whatever it is asked; its address, and the list of what it was asked."""
    with contextlib.ExitStack() as stack:

        def start(status, body):
            asked = []

            class Handler(BaseHTTPRequestHandler):
                protocol_version = "HTTP/1.1"

                def do_POST(self):
                    asked.append(self.rfile.read(int(self.headers["Content-Length"])))
                    payload = json.dumps(body).encode()
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(payload)))
                    self.end_headers()
                    self.wfile.write(payload)

                def log_message(self, *_):
                    """Keeps quiet."""

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/v1", asked

        yield start


__all__ = ["Bench", "photo", "png", "row"]
