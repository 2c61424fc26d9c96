"""Bytes of images lie once, by content, and whoever asks for a name gets those bytes or a reason."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.errors import EpisodeFailure
from agent.image_library import open_library
from reinforcement_learning.verl_adapter import image_store
from reinforcement_learning.verl_adapter.image_store import (
    BackgroundCache,
    BoundedCache,
    ImageMissing,
    ImageRef,
    ImageStore,
    run_store,
)
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(image_store, "_FIRST_PAUSE_S", 0.001)


def files(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_a_file_lies_once_under_its_hash_however_often_it_is_put(tmp_path):
    store = ImageStore(tmp_path)
    name = hashlib.sha256(b"picture").hexdigest()
    assert store.put(b"picture") == store.put(b"picture") == name
    assert files(tmp_path) == [f"{name[:2]}/{name}"]
    assert ImageStore(tmp_path).get(name) == b"picture"


def test_an_image_that_a_store_of_data_has_on_the_same_disk_is_not_copied(tmp_path, monkeypatch):
    library, store = open_library(tmp_path / "store"), ImageStore(tmp_path / "run")
    name = library.put(b"picture")
    assert store.put(b"picture", library=library) == name
    assert store.path(name).samefile(library.path(name))
    other = store.put(b"other", library=library)
    assert (store.path(other).stat().st_nlink, store.get(other)) == (1, b"other")
    shutil.rmtree(library.root)
    assert store.get(name) == b"picture"

    def another_disk(*_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", another_disk)
    library, store = open_library(tmp_path / "far"), ImageStore(tmp_path / "run2")
    library.put(b"picture")
    assert store.get(store.put(b"picture", library=library)) == b"picture"


def test_images_of_a_step_lie_apart_and_go_with_their_step(tmp_path):
    store = ImageStore(tmp_path)
    kept = store.put(b"of the data set")
    names = {step: store.put(b"crop", step=step) for step in (1, 2, 9)}
    assert names[2] == f"2/{hashlib.sha256(b'crop').hexdigest()}"
    assert store.drop_steps(before=9) == 2
    other = ImageStore(tmp_path)
    assert (other.get(kept), other.get(names[9])) == (b"of the data set", b"crop")
    with pytest.raises(ImageMissing, match="must be one that all nodes share"):
        other.get(names[2])
    assert other.drop_steps() == 1
    assert files(tmp_path) == [f"{kept[:2]}/{kept}"]


def test_a_file_that_is_not_what_its_name_says_is_told_and_is_our_outage(tmp_path):
    store = ImageStore(tmp_path)
    name = store.put(b"picture")
    store.path(name).write_bytes(b"pict")
    with pytest.raises(EpisodeFailure, match="4 bytes have another SHA-256"):
        store.get(name)
    # The next who has it mends it.
    store.put(b"picture")
    assert store.get(name) == b"picture"


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "ab", "A" * 64, "x/" + "a" * 64, "1/2/" + "a" * 64, "a" * 64 + "\n"]
)
def test_what_is_no_name_is_refused(tmp_path, name):
    with pytest.raises(ImageMissing, match="names no image"):
        ImageStore(tmp_path).get(name)


def test_a_reader_on_another_node_waits_for_a_file_that_comes_late(tmp_path):
    store, name = ImageStore(tmp_path), hashlib.sha256(b"late").hexdigest()
    threading.Timer(0.03, lambda: ImageStore(tmp_path).put(b"late")).start()
    assert store.get(name) == b"late"


def test_many_processes_may_write_the_same_image(tmp_path):
    code = f"""
import sys
from pathlib import Path
from reinforcement_learning.verl_adapter.image_store import ImageStore
store = ImageStore(Path({str(tmp_path)!r}))
for number in range(40):
    data = bytes([number]) * 200_000
    name = store.put(data, step=number % 3)
    assert ImageStore(store.root, cache_bytes=0).get(name) == data
"""
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    writers = [subprocess.Popen([sys.executable, "-c", code], env=env) for _ in range(4)]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert len(files(tmp_path)) == 40, "a partial file was left behind"


def test_a_process_keeps_no_more_bytes_than_it_may(tmp_path):
    store = ImageStore(tmp_path, cache_bytes=1000)
    names = [store.put(bytes([number]) * 400) for number in range(5)]
    for name in names * 2:
        store.get(name)
        assert store._files.num_bytes <= 1000
    store.get(names[4])
    store.path(names[4]).unlink()
    assert store.get(names[4]) == bytes([4]) * 400, "the last one is kept"


def test_a_process_outside_a_run_is_told_what_is_missing(monkeypatch):
    monkeypatch.delenv("DEEPEYES_IMAGE_STORE", raising=False)
    run_store.cache_clear()
    with pytest.raises(ValueError, match="DEEPEYES_IMAGE_STORE is not set"):
        run_store()


def test_the_cache_forgets_what_was_not_used_for_longest():
    cache: BoundedCache[str, bytes] = BoundedCache(len, max_bytes=10)
    for key in "abc":
        cache.put(key, key.encode() * 3)
    cache.get("a")
    cache.put("d", b"ddd")
    assert [cache.get(key) is not None for key in "abcd"] == [True, False, True, True]
    cache.put("e", b"e" * 11)
    assert cache.get("e") is None, "what does not fit at all is not kept"
    assert [cache.get(key) is not None for key in "acd"] == [True, True, True]


def test_a_value_is_made_once_for_all_who_ask_at_a_time():
    made = []

    def make(key):
        made.append(key)
        time.sleep(0.02)
        return key * 2

    cache: BackgroundCache[str, str] = BackgroundCache(make, len, max_bytes=100, threads=4)
    with ThreadPoolExecutor(16) as askers:
        assert set(askers.map(lambda _: cache.submit("ab").result(), range(64))) == {"abab"}
    assert made == ["ab"]


def test_a_value_that_could_not_be_made_is_tried_again():
    answers = iter([OSError("away"), "there"])

    def make(key):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cache: BackgroundCache[str, str] = BackgroundCache(make, len, max_bytes=100, threads=1)
    with pytest.raises(OSError, match="away"):
        cache.submit("x").result()
    assert cache.submit("x").result() == "there"


def test_equal_pixels_have_equal_keys_wherever_they_lie():
    sha256 = "a" * 64
    assert ImageRef(sha256, 10, 20).key == ImageRef(f"3/{sha256}", 10, 20).key == f"{sha256}-10x20"
    assert ImageRef(sha256, 10, 21).key != ImageRef(sha256, 10, 20).key
