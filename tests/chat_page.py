"""The page of `deepeyes chat --web` with all that it needs: a simulated model that streams, a real sandbox, the real command."""

import io
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from evaluation.smoke.scripted_model import request_server
from serving.processes import redis_server, sandbox_server
from tests.browser import look
from tests.conftest import ROOT

LOOK = (
    "<think>The sign above the door is small. I look at it closely before I answer.</think>\n<code>\n```python\n"
    "sign = image_1.crop((300, 96, 420, 150))\nprint(sign.size, 'of', image_1.size)\nsign.resize((720, 324))\n```\n</code>"
)
ANSWER = "The sign is legible now: white letters on blue.</think>\n<answer>It says BAKERY, open since 1924. 面包店</answer>"
COUNT = "The crop is still there.</think>\n<code>\n```python\nprint(len(sign.getcolors(99999)), 'colours')\n```\n</code>"
COUNTED = "So it is.</think>\n<answer>The sign has only a few colours: blue, white and what lies between them.</answer>"
ASKED = "What does the sign above the door say? 门上的牌子写着什么?"


def street() -> bytes:
    """A photograph, as far as one can be drawn."""
    picture = Image.new("RGB", (720, 480), (166, 205, 235))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 380, 720, 480), fill=(120, 120, 125))
    for left, colour in ((0, (201, 120, 96)), (240, (226, 196, 142)), (480, (150, 160, 140))):
        draw.rectangle((left, 40, left + 236, 380), fill=colour)
        for column in range(3):
            draw.rectangle((left + 24 + 70 * column, 180, left + 66 + 70 * column, 240), fill=(70, 84, 104))
    draw.rectangle((330, 270, 390, 380), fill=(92, 60, 40))
    draw.rectangle((304, 100, 416, 146), fill=(24, 62, 140))
    draw.text((360, 116), "BAKERY", fill="white", anchor="mm", font=ImageFont.load_default(22))
    draw.text((360, 136), "open since 1924", fill="white", anchor="mm", font=ImageFont.load_default(11))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def reply(body: dict) -> str:
    """Looks, answers; counts when asked again, and answers."""
    return (LOOK, ANSWER, COUNT, COUNTED)[min(3, sum(message["role"] == "user" for message in body["messages"]) - 1)]


@contextmanager
def served_page(model_url: str, out: Path, *arguments: str):
    """The command with `--web`; its link."""
    command = [sys.executable, "-m", "deepeyes.cli", "chat", "--web", "--port", "0", "--base-url", model_url, "--out", str(out), *arguments]
    # Whoever runs the tests in the background has let them ignore the interrupt, and children inherit that.
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ, preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    ) as process:
        try:
            yield process.stdout.readline().split()[0]
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait(30)
    assert code == 130, code


@contextmanager
def whole_scene(folder: Path, **model):
    """Everything; the link of the page."""
    with ExitStack() as stack:
        (folder / "redis").mkdir()
        (folder / "sandbox").mkdir()
        redis_url = stack.enter_context(redis_server(folder / "redis"))
        arguments = ("--spare-kernels", "1", "--require-level", "0")
        sandbox_url = stack.enter_context(sandbox_server(folder / "sandbox", redis_url, arguments=arguments))
        model_url = stack.enter_context(request_server(reply, models=("deepeyes-7b",), **model))
        yield stack.enter_context(served_page(model_url, folder / "run", "--sandbox-urls", sandbox_url, "--tools", "python"))


def add_image(page, data: bytes, name: str = "street.png", kind: str = "image/png") -> None:
    """Drop a file on the page."""
    page.run(
        f"""(() => {{
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array({list(data)})], {name!r}, {{type: {kind!r}}}));
            for (const type of ["dragover", "drop"]) document.body.dispatchEvent(new DragEvent(type, {{bubbles: true, cancelable: true, dataTransfer: data}}));
        }})()"""
    )


def type_and_send(page, text: str) -> None:
    """Write into the field that has the focus, and press Enter."""
    page.run("document.getElementById('question').focus()")
    page.call("Input.insertText", text=text)
    for kind in ("rawKeyDown", "char", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r" if kind == "char" else "")


def converse(page, url: str, *, width: int, height: int, theme: str) -> None:
    """One question with an image, answered."""
    look(page, width=width, height=height, theme=theme)
    page.open(url)
    add_image(page, street())
    page.wait_for("document.querySelectorAll('#pending img').length === 1")
    type_and_send(page, ASKED)
    page.wait_for("document.querySelector('.end') !== null")
    page.wait_for("[...document.images].filter(i => i.src).every(i => i.complete && i.naturalWidth > 0)")
