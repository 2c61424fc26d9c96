"""A real headless Chromium, driven through its DevTools protocol."""

from __future__ import annotations

import base64
import functools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-port=0", "--window-size=1300,900",
)  # fmt: skip


# Every visible text against what lies behind it, by the formula of WCAG 2; colours as the browser has computed them.
CONTRASTS = """(() => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const over = (colour, below) => {
        canvas.fillStyle = `rgb(${below})`; canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const behind = (element) => element === null ? [255, 255, 255] : over(getComputedStyle(element).backgroundColor, behind(element.parentElement));
    const light = (rgb) => { const [r, g, b] = rgb.map(v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const poor = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest(':disabled, script')) continue;
        const below = behind(element), [a, b] = [light(below), light(over(getComputedStyle(element).color, below))];
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) poor.push(`${walker.currentNode.data.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
    }
    return poor;
})()"""
# Words of headings and headers that are broken across lines, and cards too narrow to read.
BROKEN = """(() => {
    const found = [];
    for (const element of document.querySelectorAll('h1, h2, h3, th')) {
        const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            for (const word of walker.currentNode.data.matchAll(/[^\\s-]+/g)) {
                const range = document.createRange();
                range.setStart(walker.currentNode, word.index);
                range.setEnd(walker.currentNode, word.index + word[0].length);
                if (range.getClientRects().length > 1 && word[0].length < 24) found.push(word[0]);
            }
        }
    }
    for (const card of document.querySelectorAll('.card, article, td')) {
        const box = card.getBoundingClientRect(), text = card.innerText.trim();
        if (text.length > 20 && box.height > 6 * box.width) found.push(`${box.width} px wide: ${text.slice(0, 40)}`);
    }
    return found;
})()"""


@functools.cache
def chromium() -> str | None:
    """The program, or None if there is none on this machine that runs."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        program = shutil.which(name)
        # Some distributions have a stand-in of that name that only asks for another package.
        if program and subprocess.run([program, "--version"], capture_output=True, timeout=60, check=False).returncode == 0:
            return program
    return None


class Page:
    """One tab."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=30))
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script: str) -> Any:
        """The value of an expression."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script: str, *, timeout_s: float = 20.0) -> Any:
        """Until an expression is true; its value."""
        until = time.monotonic() + timeout_s
        while not (value := self.run(script)):
            assert time.monotonic() < until, (
                f"{script} was not true in {timeout_s} s; the page: {self.run('document.body.innerText')[:2000]}"
            )
            time.sleep(0.05)
        return value

    def open(self, url: str) -> None:
        """Load a page that says by `data-ready` that it shows what its address asks for."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self.ready()

    def ready(self) -> None:
        self.wait_for("document.body && document.body.dataset.ready === (location.hash || '#/')")

    def press_enter(self) -> None:
        """The key, on what has the focus."""
        for kind, text in (("rawKeyDown", ""), ("char", "\r"), ("keyUp", "")):
            self.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text=text)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with one tab, ended with the block."""
    program = chromium()
    assert program is not None
    command = [program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"]
    with (folder / "chromium.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            port_file, until = folder / "DevToolsActivePort", time.monotonic() + 60
            while not (port_file.exists() and port_file.read_text().count("\n")):
                assert process.poll() is None, (folder / "chromium.log").read_text()[-2000:]
                assert time.monotonic() < until, "Chromium did not open its port in 60 s"
                time.sleep(0.1)
            port = port_file.read_text().splitlines()[0]
            tabs = httpx.get(f"http://127.0.0.1:{port}/json/list").json()
            address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            with connect(address, max_size=None) as socket:
                page = Page(socket)
                page.call("Page.enable")
                yield page
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def look(page: Page, *, width: int, height: int, theme: str) -> None:
    """The size of the window, and what the person prefers."""
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
    features = {"prefers-color-scheme": theme, "prefers-reduced-motion": "reduce"}
    page.call("Emulation.setEmulatedMedia", features=[{"name": name, "value": value} for name, value in features.items()])
