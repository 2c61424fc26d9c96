"""Cells whose right answers are known, and the model's own faults among them. See sandbox_chaos.py."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

from PIL import Image, ImageChops

from code_sandbox.wire import ExecuteResult

_FAULT_SHARE = 0.13
_PATIENT_S = 60.0
_SIDE_PX = 64
_NOISE_TO_THE_SERVER = """
import os, stat
for number in range(3, 64):
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode): os.write(number, b'\\x00\\x00\\x00\\x04' + os.urandom(4096))
    except OSError: pass
"""
_TOGETHER = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        try:
            data = bytearray(450 << 20)
            data[::4096] = b'x' * len(data[::4096])
            time.sleep(30)
        finally:
            os._exit(0)
time.sleep(30)
"""
_CUT_PICTURE = """
import io
from IPython.display import Image as _File, display
from PIL import Image as _Image
whole = io.BytesIO(); _Image.effect_noise((50, 50), 9).save(whole, 'PNG')
display(_File(data=whole.getvalue()[:70]))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """A cell and what is known about its answer."""

    name: str
    code: str
    timeout_s: float = _PATIENT_S
    statuses: tuple[str, ...] = ("ok",)
    result: str | None = None
    """None: not looked at."""
    stdout: str = ""
    error: tuple[str, str] | None = None
    """(name, message)"""
    picture: Image.Image | None = None
    cut_picture: bool = False
    """Whether an image that cannot be read is shown; whoever shows it to the model leaves it out."""
    fault: bool = False
    """Whether it is the model's own."""
    loses_state: bool = False
    ends_session: bool = False
    """Whether nobody knows what later cells do."""

    def differs(self, got: ExecuteResult) -> str:
        """What is wrong about an answer; empty if nothing."""
        if got.status not in self.statuses:
            wanted_status = " or ".join(self.statuses)
            return f"status is {got.status}, not {wanted_status} (state_lost {got.state_lost}): {got.stderr[-200:]}"
        if self.loses_state and not got.state_lost:
            return "the state was not lost"
        if got.status in ("ok", "error") and got.state_lost:
            return f"the state was lost with status {got.status}"
        if self.result is not None and got.result != self.result:
            return f"result is {got.result!r}, not {self.result!r}"
        if got.stdout != self.stdout and not self.fault:
            return f"stdout is {got.stdout!r}, not {self.stdout!r}"
        told = None if got.error is None else (got.error.name, got.error.message)
        if self.error is not None and (told is None or not told[1].startswith(self.error[1]) or told[0] != self.error[0]):
            return f"error is {told}, not {self.error}"
        return "" if self.cut_picture else self._shows_another(got)

    def _shows_another(self, got: ExecuteResult) -> str:
        shown = [Image.open(io.BytesIO(image.data)).convert("RGB") for image in got.images]
        wanted = [] if self.picture is None else [self.picture]
        if [each.size for each in shown] != [each.size for each in wanted]:
            return f"{len(shown)} images instead of {len(wanted)}"
        if any(ImageChops.difference(a, b).getbbox() for a, b in zip(shown, wanted, strict=True)):
            return "the image is another one"
        return ""


FAULTS = (
    Expected(name="segfault", code="import ctypes; ctypes.string_at(0)", statuses=("killed",), loses_state=True, fault=True),
    Expected(name="os._exit", code="import os; os._exit(3)", statuses=("killed",), loses_state=True, fault=True),
    Expected(name="memory", code="x = bytearray(3 << 30)", statuses=("error",), error=("MemoryError", ""), fault=True),
    Expected(name="memory of children", code=_TOGETHER, timeout_s=25, statuses=("killed",), loses_state=True, fault=True),
    Expected(name="endless loop", code="while True: pass", timeout_s=0.7, statuses=("timeout",), fault=True),
    Expected(
        name="loop that cannot be interrupted",
        code="import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        timeout_s=0.7,
        statuses=("timeout",),
        loses_state=True,
        fault=True,
    ),
    Expected(name="cut picture", code=_CUT_PICTURE, cut_picture=True, fault=True),
)
_NOISE = {
    "fork": Expected(
        name="noise to the server", code=_NOISE_TO_THE_SERVER, timeout_s=3, statuses=("killed",), fault=True,
        ends_session=True, loses_state=True,
    ),
    "jupyter": Expected(
        name="noise to the server", code=_NOISE_TO_THE_SERVER, timeout_s=3, statuses=("killed", "timeout", "ok"), fault=True,
        ends_session=True,
    ),
}  # fmt: skip


class Known:
    """What a session must hold."""

    def __init__(self, rng: random.Random, backend: str) -> None:
        self._rng = rng
        self._backend = backend
        self.image = Image.frombytes("RGB", (_SIDE_PX, _SIDE_PX), rng.randbytes(3 * _SIDE_PX * _SIDE_PX))
        self.forget()

    def forget(self) -> None:
        """The state is that of a new process."""
        self._total: int | None = None
        self._note = ""
        self._drawn = ""

    def next_cell(self) -> Expected:
        """Any cell."""
        if self._rng.random() < _FAULT_SHARE:
            return self._rng.choice((*FAULTS, _NOISE[self._backend]))
        if self._total is None:
            return Expected(name="first", code="total = 0")
        k, word = self._rng.randint(1, 1000), f"{self._rng.getrandbits(48):x}"
        width, height = self._rng.randint(30, _SIDE_PX), self._rng.randint(30, _SIDE_PX)
        added = str(self._total + k)
        return self._rng.choice(
            (
                Expected(name="count", code=f"total += {k}\ntotal", result=added),
                Expected(
                    name="slow", code=f"import time; time.sleep(0.7)\ntotal += {k}\ntotal", timeout_s=4.0, result=added
                ),
                Expected(
                    name="file",
                    code=f"open('note', 'a').write({word!r})\nprint(open('note').read())",
                    stdout=f"{self._note}{word}\n",
                ),
                Expected(
                    name="picture",
                    code=f"image_1.crop((0, 0, {width}, {height}))",
                    picture=self.image.crop((0, 0, width, height)),
                ),
                Expected(
                    name="raises",
                    code=f"total += {k}\nraise ValueError({word!r})",
                    statuses=("error",),
                    error=("ValueError", word),
                ),
                Expected(name="kept", code="drawn", result=self._drawn)
                if self._drawn
                else Expected(name="draw", code="import random; drawn = random.random()\ndrawn"),
            )
        )

    def happened(self, cell: Expected, got: ExecuteResult) -> None:
        """A cell has had its answer."""
        if got.state_lost:
            self.forget()
        elif cell.name == "first":
            self._total = 0
        elif cell.name in ("count", "slow"):
            self._total = int(cell.result or 0)
        elif cell.name == "raises" and self._total is not None:
            self._total += int(cell.code.split()[2])
        elif cell.name == "file":
            self._note = cell.stdout.rstrip("\n")
        elif cell.name == "draw":
            self._drawn = got.result
