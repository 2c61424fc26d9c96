"""A real HTTP server that answers like vLLM, from a function. For tests of what talks to one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[list[dict[str, Any]]], str | int]


@contextmanager
def model_server(answer: Answer, *, port: int = 0) -> Iterator[str]:
    """Serve chat completions; `answer` gets the messages and returns a text, or an HTTP status to fail with."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            payload = json.dumps({"data": [{"id": "judge"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            said = answer(body["messages"])
            status = said if isinstance(said, int) else 200
            content = {
                "choices": [{"message": {"content": said}, "finish_reason": "stop"}],
                "usage": {"completion_tokens": 5},
            }
            payload = json.dumps(content if status == 200 else {"error": "no"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
