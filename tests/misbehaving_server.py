"""A real HTTP server that does what servers do on a bad day: the first part of the path says what."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = b'{"results": [{"title": "T", "url": "http://t/", "content": "S"}]}'


class MisbehavingServer:
    """`url/slow/…` answers late, `garbage` no JSON, `status429` with that status, `twice500` badly twice and then well, `cut` half an
    answer, `reset` none, `huge` without end, `page` HTML, `loop` redirects to itself, `inside` to a private address, `binary` a PDF."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.hits: Counter[str] = Counter()


@contextmanager
def misbehaving_server() -> Iterator[MisbehavingServer]:  # noqa: C901 - one branch for each kind of bad day
    """Serve on loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # noqa: C901
            kind = self.path.split("/")[1].split("?")[0]
            state.hits[kind] += 1
            if kind == "slow":
                time.sleep(1.0)
                self.answer(200, GOOD)
            elif kind == "good":
                self.answer(200, GOOD)
            elif kind == "garbage":
                self.answer(200, b"<html>We will be back soon</html>")
            elif kind.startswith("status"):
                self.answer(int(kind[6:]), b"no", Retry_After="0")
            elif kind == "wait":
                self.answer(200 if state.hits[kind] > 1 else 429, GOOD, Retry_After="0.4")
            elif kind == "twice500":
                self.answer(200 if state.hits[kind] > 2 else 500, GOOD)
            elif kind == "cut":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(GOOD)
                self.close_connection = True
            elif kind == "reset":
                self.close_connection = True
            elif kind == "huge":
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Connection", "close")
                self.end_headers()
                for _ in range(200):
                    self.wfile.write(b"panda " * 10_000)
                self.close_connection = True
            elif kind == "page":
                body = "<html><head><title>Pandas</title></head><body><nav>menu</nav><article><h1>Pandas</h1><p>" + (
                    "The giant panda eats bamboo all day long. " * 8 + "</p></article></body></html>"
                )
                self.answer(200, body.encode(), Content_Type="text/html; charset=utf-8")
            elif kind == "loop":
                self.answer(302, b"", Location="/loop")
            elif kind == "hop":
                self.answer(302, b"", Location="/page")
            elif kind == "binary":
                self.answer(200, b"%PDF-1.7", Content_Type="application/pdf")
            else:
                self.answer(404, b"no")

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None: ...  # clients of a misbehaving server hang up

    server = Server(("127.0.0.1", 0), Handler)
    state = MisbehavingServer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
