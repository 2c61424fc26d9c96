"""A real HTTP server of files, with ranges and marks, that breaks off, changes its files and shows pages instead of them; and a hub."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Served:
    """One file and how it is served."""

    data: bytes
    mark: str = ""
    """ETag; a range asked for with another one is answered with the whole."""
    last_modified: str = ""
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    """The next answers end after so many bytes."""
    statuses: list[int] = field(default_factory=list)
    """The next answers are these."""
    headers: dict[str, str] = field(default_factory=dict)
    length: bool = True
    shifted: int = 0
    """Ranges begin so many bytes too late, and say so."""
    elsewhere: str = ""
    """Redirects there."""
    encoding: str = ""


class FileServer:
    """What is served by path, and who has asked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.other_url = f"http://localhost:{port}"
        """The same server, for a client another host."""
        self.files: dict[str, Served] = {}
        self.hubs: dict[str, dict[str, bytes]] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Path, and headers in lower case."""
        self.token = ""
        """Without which sets of the hub are not given."""
        self.api_statuses: list[int] = []

    def ranges(self, path: str) -> list[str | None]:
        return [headers.get("range") for asked, headers in self.asked if asked == path]

    def hub(self, repo: str, files: dict[str, bytes]) -> None:
        """Give a set, its large files behind a redirect to another host."""
        self.hubs[repo] = files
        for name, data in files.items():
            self.files[f"/datasets/{repo}/resolve/{COMMIT}/{name}"] = Served(data, elsewhere=f"{self.other_url}/cdn/{repo}/{name}")
            self.files[f"/cdn/{repo}/{name}"] = Served(data, mark=f'"{hashlib.sha256(data).hexdigest()}"')

    def tree(self, repo: str) -> list[dict[str, Any]]:
        entries = []
        for name, data in self.hubs[repo].items():
            blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
            entry: dict[str, Any] = {"type": "file", "oid": blob, "size": len(data), "path": name}
            if not name.endswith(".md"):
                entry |= {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}}
            entries.append(entry)
        return entries


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FileServer

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.state.asked.append((path, headers))
        if path.startswith("/api/datasets/"):
            self.api(path)
        elif path.startswith("/datasets/") and not self.known():
            self.answer(401, b"no")
        elif path not in self.state.files:
            self.answer(404, b"no such file")
        else:
            self.file(self.state.files[path], headers)

    def known(self) -> bool:
        return not self.state.token or self.headers.get("Authorization") == f"Bearer {self.state.token}"

    def api(self, path: str) -> None:
        found = re.fullmatch(r"/api/datasets/([^/]+/[^/]+)(/revision/main|/tree/(\w+))", path)
        if self.state.api_statuses:
            self.answer(self.state.api_statuses.pop(0), b"{}", {"Retry-After": "0"})
        elif found is None or found[1] not in self.state.hubs:
            self.answer(404 if self.known() and self.state.token else 401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif not self.known():
            self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif found[3]:
            self.json(self.state.tree(found[1]))
        else:
            self.json({"id": found[1], "sha": COMMIT, "siblings": []})

    def json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def file(self, one: Served, headers: dict[str, str]) -> None:
        if one.statuses:
            self.answer(one.statuses.pop(0), b"<html>sorry</html>", {"Content-Type": "text/html", **one.headers})
            return
        if one.elsewhere:
            self.answer(302, b"", {"Location": one.elsewhere})
            return
        said = {**one.headers, **({"ETag": one.mark} if one.mark else {})}
        said |= {"Last-Modified": one.last_modified} if one.last_modified else {}
        said |= {"Content-Encoding": one.encoding} if one.encoding else {}
        wanted = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
        same = headers.get("if-range") in (None, one.mark, one.last_modified)
        if not (wanted and one.ranges and same):
            self.answer(200, one.data, said, one)
        elif int(wanted[1]) >= len(one.data):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(one.data)}"})
        else:
            start = int(wanted[1]) + one.shifted
            span = f"bytes {start}-{len(one.data) - 1}/{len(one.data)}"
            self.answer(206, one.data[start:], {**said, "Content-Range": span}, one)

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, one: Served | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if one is None or one.length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if one is not None and one.cut_after:
            body, self.close_connection = body[: one.cut_after.pop(0)], True
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def file_server() -> Iterator[FileServer]:
    """Serve on loopback until the block ends."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None: ...

    server = Server(("127.0.0.1", 0), BaseHTTPRequestHandler)
    state = FileServer(server.server_port)
    server.RequestHandlerClass = type("Handler", (_Handler,), {"state": state})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
