"""Files are whole or not there: through errors, kills, full disks, and others who write the same at once."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.files import PARTIAL, NotWritten, whole_file, write_whole
from tests.conftest import ROOT


@pytest.mark.parametrize("durable", [False, True])
def test_text_bytes_and_parts_are_written_as_they_are_into_a_folder_that_is_made(tmp_path, durable):
    path = tmp_path / "a/b/file"
    write_whole(path, "a\r\nb\ud800ä", durable=durable)
    assert path.read_bytes() == b"a\r\nb?" + "ä".encode()
    write_whole(path, (part for part in ("a", b"\xff")), durable=durable, mode=0o444)
    assert path.read_bytes() == b"a\xff"
    assert path.stat().st_mode & 0o777 == 0o444
    assert os.listdir(path.parent) == ["file"]


def test_an_error_on_the_way_leaves_the_old_file_and_nothing_else_and_stays_the_error_that_it_is(tmp_path):
    (tmp_path / "a").write_text("old")

    def texts():
        yield "new"
        (tmp_path / "source").read_text()

    with pytest.raises(FileNotFoundError, match="source"):
        write_whole(tmp_path / "a", texts())
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_place_that_cannot_be_written_to_is_named_with_the_room_that_is_there(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritten, match=r"file/b cannot be written: .*file is no folder \([\d.,]+ GB free in .*\)") as error:
        write_whole(tmp_path / "file/b", "x")
    assert error.value.errno == errno.EEXIST


def test_a_file_that_does_not_fit_is_named_with_the_room_that_is_left(tmp_path):
    code = (
        "import resource, sys; from pathlib import Path; from agent.files import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "write_whole(Path(sys.argv[1]), (b'x' * (1 << 16) for _ in range(64)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "big")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert f"NotWritten: {tmp_path / 'big'} cannot be written: File too large (" in run.stderr
    assert "GB free in" in run.stderr
    assert os.listdir(tmp_path) == []


def test_a_kill_leaves_the_old_file_and_one_that_is_hidden_and_marked(tmp_path):
    (tmp_path / "a").write_text("old")
    code = (
        "import os, sys; from pathlib import Path; from agent.files import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'new'); file.flush(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], cwd=ROOT, check=False)
    assert (tmp_path / "a").read_text() == "old"
    (left,) = (path for path in tmp_path.iterdir() if path.name != "a")
    assert left.name.startswith(".a.")
    assert left.name.endswith(PARTIAL)


def test_whoever_reads_while_many_write_sees_a_whole_file(tmp_path):
    path = tmp_path / "a"
    write_whole(path, "0" * 9999)
    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write_whole, path, str(number % 10) * 9999) for number in range(200)]
        while not all(one.done() for one in writing):
            text = path.read_text()
            assert (len(text), len(set(text))) == (9999, 1)
    assert os.listdir(tmp_path) == ["a"]


def test_a_name_as_long_as_a_name_may_be_can_be_written(tmp_path):
    write_whole(tmp_path / ("ä" * 127), "x")
    with whole_file(tmp_path / ("a" * 255)) as file:
        file.write(b"x")
    assert len(os.listdir(tmp_path)) == 2
