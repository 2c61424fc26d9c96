"""Parts of the server that need no process: limits, digests, settings, the filter, uploads."""

import dataclasses
import hashlib
import io
import json
import logging
import re
import struct

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from code_sandbox.errors import BadImage, BlobsMissing, NotReplayable
from code_sandbox.pictures import upright_rgb
from code_sandbox.server import probes, seccomp
from code_sandbox.server.app import create_app
from code_sandbox.server.blobs import BlobStore
from code_sandbox.server.cells import CellOutput
from code_sandbox.server.display import ImageEncoder, QuestionImage
from code_sandbox.server.journal import to_replay
from code_sandbox.server.results import bounded, digest, truncate
from code_sandbox.server.serving import JsonFormatter
from code_sandbox.server.settings import load_settings
from code_sandbox.server.store import JournalEntry, Registered
from code_sandbox.wire import CellImage, ExecuteRequest, ExecuteResult, Isolation
from tests.conftest import png
from tests.pictures import pictures


def test_the_page_of_the_api_names_every_route_and_loads_and_runs_nothing():
    app = create_app(load_settings(None, {}), sessions=None, isolation=None)
    page = TestClient(app, base_url="http://127.0.0.1").get("/docs").text
    for path in app.openapi()["paths"]:
        assert f" {path}</code>" in page
    assert "timeout_s" in page
    assert not re.search(r"<script|src=|@import|https?://", page)


def test_cut_output_says_so():
    assert truncate("abc", 3) == "abc"
    assert truncate("abcd", 3) == "ab\n[output cut at 3 characters]\nd"


def test_a_long_traceback_keeps_its_end():
    output = CellOutput(status="error", error=("E", "why", "start" + "x" * 100 + "E: why"))
    traceback = bounded(output, ExecuteRequest(code="", max_chars=40), max_image_bytes=1).error.traceback
    assert traceback.startswith("start")
    assert traceback.endswith("E: why")
    assert "traceback cut at 40 characters" in traceback


@pytest.mark.parametrize(
    ("mime", "data", "note"),
    [
        ("image/png", b"oops", "it is no image/png"),
        ("image/png", b"\x89PNG\r\n\x1a\n" + b"\0" * 30, "image was dropped"),
        ("image/jpeg", png(), "it is no image/jpeg"),
        ("image/jpeg", b"\xff\xd8" + b"\xff\xe0\0\x02" * 900, "it is no image/jpeg"),
        ("image/png", png()[:16] + bytes(8) + png()[24:], "it is no image/png"),
        ("image/svg+xml", b"<svg/>", "its type is"),
        ("image/png", png(60, 60), "it has 60x60 pixels; the limit is 3,000"),
        ("image/png", png() + b"x" * 5000, "bytes; the limit is 4,000"),
    ],
)
def test_an_image_that_is_none_is_dropped_with_a_note(mime, data, note):
    result = bounded(CellOutput(images=[(mime, data)]), ExecuteRequest(code="", max_pixels=3000), max_image_bytes=4000)
    assert result.images == []
    assert note in result.stderr


@given(
    st.sampled_from(["L", "RGB", "CMYK"]),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([{}, {"progressive": True}, {"optimize": True}, {"exif": b"Exif\0\0" + bytes(3000)}, {"comment": b"x" * 60_000}]),
)
def test_the_size_of_an_image_is_read_as_pillow_reads_it(mode, width, height, options):
    image = Image.new(mode, (width, height))
    for mime, kind, more in (("image/jpeg", "JPEG", options), ("image/png", "PNG", {})):
        buffer = io.BytesIO()
        (image if kind == "JPEG" else image.convert("RGB")).save(buffer, kind, **more)
        result = bounded(CellOutput(images=[(mime, buffer.getvalue())]), ExecuteRequest(code=""), max_image_bytes=1 << 20)
        assert [(shown.width_px, shown.height_px) for shown in result.images] == [(width, height)]


def test_a_digest_sees_every_part_but_neither_addresses_nor_time():
    image = CellImage(mime="image/png", data=png(), width_px=8, height_px=8)
    plain = ExecuteResult(status="ok", stdout="<A at 0x7f12abcdef>")
    assert digest(plain) == digest(plain.model_copy(update={"stdout": "<A at 0x7f99999999>", "execution_time_s": 3.0}))
    parts = [{"status": "error"}, {"stdout": "b"}, {"stderr": "b"}, {"result": "b"}, {"images": [image]}]
    digests = {digest(plain.model_copy(update=part)) for part in parts} | {digest(plain)}
    assert len(digests) == len(parts) + 1
    # Text does not slide from one part into the next.
    assert digest(ExecuteResult(status="ok", stdout="ab")) != digest(ExecuteResult(status="ok", stdout="a", stderr="b"))


def journal(*statuses, base=0):
    return Registered("a#1", (), base, tuple(JournalEntry("x", status, "", 1, 1000, "png") for status in statuses))


def test_a_session_is_replayed_up_to_what_its_caller_has_seen():
    assert len(to_replay("s", journal("ok", "error", "ok"), None)) == 3
    assert len(to_replay("s", journal("ok", "error", "ok"), 2)) == 2
    assert len(to_replay("s", journal("ok", base=4), 5)) == 1
    assert to_replay("s", journal(), 0) == ()


@pytest.mark.parametrize(
    ("known", "cell", "why"),
    [
        (journal("ok"), 2, "its caller has 2 answers, but cells 0 to 1 are written down"),
        (journal("ok", base=3), 2, "cells 3 to 4 are written down"),
        (journal("ok", "timeout", "ok"), 3, "a cell that timed out cannot be run again"),
    ],
)
def test_a_session_whose_cells_are_not_all_there_is_lost_and_not_faked(known, cell, why):
    with pytest.raises(NotReplayable, match=why):
        to_replay("s", known, cell)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_sessions": 0}, {"lease_s": 0}, {"require_level": 4}, {"without": ["walls"]},
        {"log_level": "loud"}, {"backend": "docker"}, {"max_sessions": "many"}, {"max_sessions": True},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        load_settings(None, bad)


def test_a_configuration_file_is_read_and_the_command_line_goes_above_it(tmp_path):
    path = tmp_path / "sandbox.yaml"
    path.write_text("max_sessions: 7\nlease_s: 30\nwithout: [uids]\n")
    settings = load_settings(path, {"max_sessions": 9})
    assert (settings.max_sessions, settings.lease_s, settings.without) == (9, 30.0, ("uids",))
    path.write_text("max_session: 7\n")
    with pytest.raises(ValueError, match=r"unknown max_session; there are host, port"):
        load_settings(path, {})


def isolation(level, **missing):
    return Isolation(level=level, name=probes.LEVELS[level], refused=[], allowed=["files"], layers=[], missing=missing)


def test_a_server_below_the_required_level_says_what_is_missing_and_what_to_do():
    assert probes.refusal(isolation(1), 1) is None
    reason = probes.refusal(isolation(0, landlock="no such kernel"), 2)
    for part in ("level 0 (open)", "2 (isolated) is required", "files", "landlock: no such kernel", "--require-level 0"):
        assert part in reason


def run_filter(program, number, arguments=(), architecture=0xC000003E):
    """What the kernel would answer: classic BPF over `struct seccomp_data`, interpreted."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = [struct.unpack("HBBI", program[i : i + 8]) for i in range(0, len(program), 8)]
    at, value = 0, 0
    while True:
        code, yes, no, constant = steps[at]
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("<I", data, constant)
        elif code == 0x06:
            return constant
        else:
            true = {0x15: value == constant, 0x25: value > constant, 0x45: bool(value & constant)}[code]
            at += yes if true else no


STRICT = seccomp.NOTHING
ALONE = seccomp.Allowed(
    unix_sockets=True, connecting=True, signalling=True, metadata=True, modes=True, truncating=True
)
OWN_USER = dataclasses.replace(STRICT, modes=True)
ALLOW, EPERM, ENOSYS, EOPNOTSUPP, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x0005005F, 0x80000000


@pytest.mark.parametrize(
    ("allowed", "number", "arguments", "answer"),
    [
        (STRICT, 0, (), ALLOW),  # read
        (STRICT, 101, (), EPERM),  # ptrace
        (STRICT, 435, (), ENOSYS),  # clone3
        (STRICT, 5000, (), ENOSYS),  # not invented yet
        (STRICT, 0x40000000, (), EPERM),  # x32
        (STRICT, 56, (17,), ALLOW),  # clone, as fork does it
        (STRICT, 56, (0x10000000,), EPERM),  # clone into a user namespace
        (STRICT, 41, (1,), EPERM),  # socket(AF_UNIX)
        (ALONE, 41, (1,), ALLOW),
        (ALONE, 41, (2,), EPERM),  # socket(AF_INET)
        (ALONE, 41, (40,), EPERM),  # socket(AF_VSOCK)
        (STRICT, 42, (), EPERM),  # connect
        (ALONE, 42, (), ALLOW),
        (STRICT, 62, (77,), ALLOW),  # kill ourselves
        (STRICT, 62, (78,), EPERM),
        (ALONE, 62, (78,), ALLOW),
        (ALONE, 16, (0, 0x5412), EPERM),  # ioctl(TIOCSTI)
        (ALONE, 16, (0, 0x5401), ALLOW),
        (ALONE, 302, (0,), ALLOW),  # prlimit of ourselves
        (ALONE, 302, (1,), EPERM),
        (ALONE, 206, (), EPERM),  # io_setup
        (ALONE, 294, (), EPERM),  # inotify_init1
        (ALONE, 72, (3, 1024, 1), EPERM),  # fcntl(F_SETLEASE)
        (ALONE, 72, (3, 1026, 1), EPERM),  # fcntl(F_NOTIFY)
        (ALONE, 72, (3, 6, 1), ALLOW),  # fcntl(F_SETLK)
        (ALONE, 54, (3, 1, 7), EPERM),  # setsockopt(SO_SNDBUF)
        (ALONE, 54, (3, 1, 32), EPERM),  # setsockopt(SO_SNDBUFFORCE)
        (ALONE, 54, (3, 1, 2), ALLOW),  # setsockopt(SO_REUSEADDR)
        (ALONE, 54, (3, 6, 7), ALLOW),  # setsockopt of another protocol
        (ALONE, 16, (3, 0x40086602), EPERM),  # ioctl(FS_IOC_SETFLAGS)
        (ALONE, 90, (0, 0o4755), EPERM),  # chmod of a program to set-uid
        (ALONE, 90, (0, 0o755), ALLOW),
        (OWN_USER, 91, (0, 0o700), ALLOW),  # fchmod
        (OWN_USER, 91, (0, 0o2700), EPERM),
        (STRICT, 91, (0, 0o700), EPERM),
        (STRICT, 452, (0, 0, 0o700), EPERM),  # fchmodat2
        (ALONE, 257, (0, 0, 0x41, 0o6755), EPERM),  # openat makes a set-uid program
        (ALONE, 257, (0, 0, 0x41, 0o644), ALLOW),
        (ALONE, 437, (), ENOSYS),  # openat2
        (ALONE, 280, (), ALLOW),  # utimensat
        (OWN_USER, 280, (), EPERM),
        (ALONE, 93, (), ALLOW),  # fchown
        (OWN_USER, 93, (), EPERM),
        (OWN_USER, 188, (), EOPNOTSUPP),  # setxattr
        (OWN_USER, 76, (), EPERM),  # truncate
        (OWN_USER, 77, (), ALLOW),  # ftruncate
    ],
)
def test_the_filter_answers_each_system_call(allowed, number, arguments, answer):
    assert run_filter(seccomp.build("x86_64", allowed, own_pid=77), number, arguments) == answer


def test_the_filter_ends_a_program_of_another_architecture_and_knows_two():
    program = seccomp.build("x86_64", ALONE, own_pid=1)
    assert run_filter(program, 0, architecture=0x40000003) == KILL
    assert run_filter(seccomp.build("aarch64", ALONE, own_pid=1), 117, architecture=0xC00000B7) == EPERM
    with pytest.raises(OSError, match="no system call table for riscv64; there are x86_64, aarch64"):
        seccomp.build("riscv64", ALONE, own_pid=1)


def named(data):
    return hashlib.sha256(data).hexdigest()


def test_uploads_are_checked_and_the_least_used_make_room(tmp_path):
    files = [png(n, n) for n in (10, 11, 12)]
    store = BlobStore(tmp_path / "blobs", limit_bytes=len(files[0]) + len(files[1]))
    for data in files[:2]:
        store.put(named(data), data)
        store.added(named(data), len(data))
    store.hold([named(files[0])])
    store.put(named(files[2]), files[2])
    store.added(named(files[2]), len(files[2]))
    assert [store.has(named(data)) for data in files] == [True, False, True]
    with pytest.raises(BlobsMissing) as missing:
        store.hold([named(files[1]), named(files[2])])
    assert missing.value.missing == [named(files[1])]
    with pytest.raises(BadImage, match="the body has sha256"):
        store.put("0" * 64, files[0])
    assert sorted(path.name for path in (tmp_path / "blobs").iterdir()) == sorted(map(named, (files[0], files[2])))


@given(
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "F", "I"]),
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 3000), st.sampled_from(["image/png", "image/jpeg"]),
)  # fmt: skip
def test_an_encoded_image_is_whole_within_its_bound_and_of_its_shape(mode, width, height, max_pixels, mime):
    encoder = ImageEncoder()
    encoder.max_pixels, encoder.mime = max_pixels, mime
    data = encoder.encode(Image.new(mode, (width, height)))
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.get_format_mimetype() == mime
        if width * height <= max_pixels:
            assert image.size == (width, height)
        else:
            assert image.width * image.height <= max(max_pixels, image.width, image.height)


def test_what_is_transparent_is_shown_on_white_and_what_is_deep_is_scaled():
    encoder = ImageEncoder()
    for mime in ("image/png", "image/jpeg"):
        encoder.mime = mime
        for mode, value, shown in (("RGBA", 0, 255), ("LA", 0, 255), ("PA", 0, 255), ("I;16", 30_000, 117), ("F", 0.5, 128)):
            with Image.open(io.BytesIO(encoder.encode(Image.new(mode, (8, 8), value)))) as image:
                assert image.convert("RGB").getpixel((4, 4)) == (shown,) * 3, mode


@pytest.mark.parametrize("kind", pictures(2, 2))
def test_an_image_of_the_question_is_like_any_other_before_and_after_it_is_looked_at(kind, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(pictures(40, 30)[kind].data)
    with path.open("rb") as file, Image.open(path) as source:
        lazy, eager = QuestionImage(file.fileno()), upright_rgb(source)
        assert (lazy.size, lazy.mode, lazy.format, lazy.info) == (eager.size, eager.mode, eager.format, {})
        assert repr(type(lazy)) == repr(type(eager))
        assert isinstance(lazy, Image.Image)
        assert lazy.crop((3, 3, 20, 20)).tobytes() == eager.crop((3, 3, 20, 20)).tobytes()
        assert type(lazy) is Image.Image
        assert QuestionImage(file.fileno()) == eager == QuestionImage(file.fileno())
        assert Image.merge("RGB", QuestionImage(file.fileno()).split()) == eager
        lazy.rotate(90).resize((9, 9)).save(tmp_path / "again.png")


def test_a_log_line_is_one_json_object_with_what_was_given():
    record = logging.makeLogRecord({"name": "a", "levelno": 20, "levelname": "INFO", "msg": "cell %d", "args": (3,)})
    record.__dict__["session"] = "s1"
    line = json.loads(JsonFormatter().format(record))
    assert {name: line[name] for name in ("level", "logger", "message", "session")} == {
        "level": "INFO", "logger": "a", "message": "cell 3", "session": "s1",
    }  # fmt: skip
    assert "code" not in line
