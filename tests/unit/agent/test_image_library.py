from __future__ import annotations

from pathlib import Path

import pytest

from agent.image_library import ImageLibrary, store_of


def test_a_file_that_was_cut_off_is_written_anew(tmp_path):
    library = ImageLibrary(tmp_path)
    name = library.put(b"picture")
    library.path(name).unlink()
    library.path(name).write_bytes(b"")
    assert library.put(b"picture") == name
    assert library.get(name) == b"picture"
    assert library.path(name).stat().st_mode & 0o777 == 0o444
    assert [path.name for path in library.path(name).parent.iterdir()] == [name]


def test_a_store_is_found_from_a_folder_that_is_given_relatively(tmp_path, monkeypatch):
    (tmp_path / "store.json").write_text('{"format": 1}')
    (tmp_path / "sets/a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "sets/a")
    assert store_of(Path()) == tmp_path


@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 64, ""])
def test_what_is_no_sha256_is_no_path(tmp_path, name):
    with pytest.raises(ValueError, match="64 hex digits"):
        ImageLibrary(tmp_path).path(name)
