"""The pictures of the README, of the pages themselves in a real Chromium.

    python -m tests.readme_pictures chat docs/chat.webp              # a question and its answer, as they come
    python -m tests.readme_pictures page docs/report.png runs/quickstart/report.html
    python -m tests.readme_pictures page docs/viewer.png 'http://127.0.0.1:8050/#/episode/ID'
"""

import argparse
import io
import tempfile
import time
from pathlib import Path

from PIL import Image

from tests.browser import browser, look
from tests.chat_page import ASKED, add_image, street, type_and_send, whole_scene

_FRAME_S = 0.12
_FIRST_MS, _LAST_MS = 1200, 5000


def _shot(page) -> Image.Image:
    with tempfile.TemporaryDirectory() as name:
        page.screenshot(Path(name) / "shot.png")
        return Image.open(io.BytesIO((Path(name) / "shot.png").read_bytes())).convert("RGB")


def chat(page, folder: Path, picture: Path) -> None:
    """A question about an image, its reply as it streams, and the answer, as an animation."""
    frames, durations = [], []

    def keep(duration_ms: float) -> None:
        frame = _shot(page)
        if frames and frame.tobytes() == frames[-1].tobytes():
            durations[-1] += duration_ms
        else:
            frames.append(frame)
            durations.append(duration_ms)

    with whole_scene(folder, pause_s=0.05) as url:
        page.open(url)
        keep(_FIRST_MS)
        add_image(page, street())
        page.wait_for("document.querySelectorAll('#pending img').length === 1")
        page.run("document.getElementById('question').focus()")
        page.call("Input.insertText", text=ASKED)
        keep(_FIRST_MS)
        type_and_send(page, "")
        before = time.monotonic()
        while not page.run("document.querySelector('.end') !== null"):
            time.sleep(_FRAME_S)
            now = time.monotonic()
            keep(1000 * (now - before))
            before = now
        page.wait_for("[...document.images].filter(i => i.src).every(i => i.complete && i.naturalWidth > 0)")
        keep(_LAST_MS)
    first, *others = frames
    durations = [round(one) for one in durations]
    first.save(picture, save_all=True, append_images=others, duration=durations, loop=0, quality=70, method=6)


def show(page, address: str, picture: Path) -> None:
    """A page as it stands."""
    page.call("Page.navigate", url=address if "://" in address else Path(address).resolve().as_uri())
    page.wait_for("document.readyState === 'complete' && document.querySelector('h1') !== null")
    page.wait_for("[...document.images].filter(i => i.src).every(i => i.complete)")
    _shot(page).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(picture, optimize=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("chat", "page"))
    parser.add_argument("picture", type=Path)
    parser.add_argument("address", nargs="?", help="of the page")
    parser.add_argument("--theme", choices=("light", "dark"), default="light")
    parser.add_argument("--size", type=int, nargs=2, default=(900, 760), metavar=("WIDTH", "HEIGHT"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "chromium").mkdir()
        with browser(Path(name) / "chromium") as page:
            look(page, width=options.size[0], height=options.size[1], theme=options.theme)
            page.call("Emulation.setScrollbarsHidden", hidden=True)
            if options.what == "chat":
                chat(page, Path(name), options.picture)
            else:
                show(page, options.address, options.picture)


if __name__ == "__main__":
    main()
