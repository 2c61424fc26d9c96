"""Takes the text out of pages of the web, in processes that can be ended: the pages are strangers', and so is the parser.

A reader is this module as a program. It says `{"ready": true}`, and then answers each page by one line of JSON:
`{"link", "html", "charset", "bytes"}`, with so many bytes behind it, by `{"title", "text", "problem"}`.
A page that takes more processor time or memory than a reader has ends its reader, and no other page.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import re
import resource
import signal
import sys
from pathlib import Path
from typing import IO, Any

from agent.search import Page

_CPU_S = 10.0
"""For one page, of the reader's own time, so that a busy machine makes no page unreadable."""
_MEMORY_BYTES = 2 << 30
_WITHIN_S = 120.0
_START_WITHIN_S = 120.0
_READERS = 4
_MAX_ANSWER_BYTES = 32 << 20
_NO_TEXT_ENCODINGS = ("idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "utf_7")
"""Of Python's, none that a page is written in; some of them take time that grows with the square of the length."""
_IN_THE_PAGE = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_HEAD_BYTES = 4096


class PageReader:
    """Some readers, started when they are needed and kept."""

    def __init__(self) -> None:
        self._idle: list[asyncio.subprocess.Process] = []
        self._busy = asyncio.Semaphore(_READERS)

    async def read(self, content: bytes, *, html: bool, charset: str | None, link: str) -> Page:
        """Title and main text; a page that cannot be read says why.

        Args:
            content: As the site sent it, without its content encoding.
            html: Or plain text.
            charset: That the site named, if it did.
            link: Where it came from.
        """
        head = {"link": link, "html": html, "charset": charset, "bytes": len(content)}
        async with self._busy:
            reader = await self._take()
            try:
                async with asyncio.timeout(_WITHIN_S):
                    reader.stdin.write(json.dumps(head).encode() + b"\n" + content)  # type: ignore[union-attr]
                    await reader.stdin.drain()  # type: ignore[union-attr]
                    answer = json.loads(await reader.stdout.readline())  # type: ignore[union-attr]
            except (OSError, ValueError, TimeoutError):
                return Page("", "", "the page is too large or too involved to be read")
            except BaseException:
                await _end(reader)
                raise
            else:
                self._idle.append(reader)
                return Page(answer["title"], answer["text"], answer["problem"])
            finally:
                if reader not in self._idle:
                    await _end(reader)

    async def _take(self) -> asyncio.subprocess.Process:
        while self._idle:
            reader = self._idle.pop()
            if reader.returncode is None:
                return reader
        reader = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            __name__,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_MAX_ANSWER_BYTES,
            env={name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
            | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)},
        )
        try:
            async with asyncio.timeout(_START_WITHIN_S):
                ready = await reader.stdout.readline()  # type: ignore[union-attr]
            if not ready:
                raise RuntimeError("what reads pages did not start; is the package trafilatura installed?")
        except BaseException:
            await _end(reader)
            raise
        return reader

    async def aclose(self) -> None:
        """End the readers."""
        while self._idle:
            await _end(self._idle.pop())


async def _end(reader: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        reader.kill()
    await reader.wait()
    # The pipe to it would otherwise be closed when somebody collects it.
    reader.stdin.close()  # type: ignore[union-attr]
    with contextlib.suppress(OSError):
        await reader.stdin.wait_closed()  # type: ignore[union-attr]


def readable(html: str, link: str) -> Page:
    """Title and main text of an HTML page."""
    import trafilatura

    found: Any = trafilatura.bare_extraction(html, url=link, include_comments=False, favor_recall=True, with_metadata=True)
    if found is None or not found.text:
        return Page("", "", "the page has no readable text")
    return Page(found.title or link, found.text)


def decoded(content: bytes, charset: str | None) -> str:
    """A page's bytes as text, in the encoding that the site or the page names, or else UTF-8."""
    named = _IN_THE_PAGE.search(content[:_HEAD_BYTES])
    for name in (charset, named and named[1].decode()):
        with contextlib.suppress(LookupError, ValueError, TypeError):
            encoding = codecs.lookup(name or "")
            if encoding.name.replace("-", "_") not in _NO_TEXT_ENCODINGS:
                return content.decode(encoding.name, "replace")
    return content.decode("utf-8", "replace")


def _serve(source: IO[bytes], sink: IO[bytes]) -> None:
    import trafilatura  # noqa: F401  before the first page's time runs

    if sys.platform == "linux":  # macOS takes no such limit
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    sink.write(b'{"ready": true}\n')
    sink.flush()
    while line := source.readline():
        head = json.loads(line)
        content = source.read(head["bytes"])
        # Its default action ends the process, also in the middle of C code.
        signal.setitimer(signal.ITIMER_PROF, _CPU_S)
        try:
            text = decoded(content, head["charset"])
            page = readable(text, head["link"]) if head["html"] else Page(head["link"], text.strip())
        except Exception as error:  # noqa: BLE001 - what a parser makes of a page is the page's affair
            page = Page("", "", f"the page cannot be read ({type(error).__name__})")
        signal.setitimer(signal.ITIMER_PROF, 0)
        answer = {"title": page.title, "text": page.text, "problem": page.problem}
        sink.write(json.dumps(answer).encode() + b"\n")
        sink.flush()


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
