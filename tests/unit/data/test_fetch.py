"""Published files come whole, or not at all: against a real server that breaks off, lies and changes its mind."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import time
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from data.downloads.archives import unpack
from data.downloads.errors import FetchFailed
from data.downloads.transfer import RemoteFile, download, new_client
from data.fetch import FetchedFile, FetchOptions, fetch, fetch_set, main
from tests.conftest import ROOT
from tests.file_server import COMMIT, Served, file_server

TABLE = b"index\tquestion\tanswer\n" + b"".join(b"%d\twhat is this?\tB\n" % number for number in range(2000))
CHANGED = b"index\tquestion\tanswer\n" + b"".join(b"%d\twhat was that\tA\n" % number for number in range(2000))
MD5 = hashlib.md5(TABLE, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def shared_server():
    with file_server() as server, new_client() as client:
        server.client = client
        yield server


@pytest.fixture
def server(shared_server, monkeypatch):
    shared_server.files.clear(), shared_server.hubs.clear(), shared_server.asked.clear(), shared_server.api_statuses.clear()
    shared_server.token = ""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return shared_server


def got(server, folder, *, md5="", name="t.tsv"):
    file = FetchedFile(file=name, url=f"{server.url}/{name}", md5=md5).remote()
    return download(file, folder, client=server.client, pause_s=0)


# ---- broken off ----


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_goes_on_where_it_stopped(server, tmp_path, ranges):
    server.files["/t.tsv"] = Served(TABLE, mark='"1"', ranges=ranges, cut_after=[3000])
    path = got(server, tmp_path)
    assert path.read_bytes() == TABLE
    assert server.ranges("/t.tsv") == [None, "bytes=3000-"]
    assert got(server, tmp_path) == path
    assert len(server.asked) == 2
    assert [one.name for one in tmp_path.iterdir()] == ["t.tsv"]


def test_a_killed_download_goes_on_in_the_next_process_as_long_as_the_file_is_the_same(server, tmp_path):
    server.files["/t.tsv"] = Served(TABLE, mark='"1"', cut_after=[3000] + [0] * 9)
    with pytest.raises(FetchFailed, match="3,000 bytes are kept, and the same command goes on from there"):
        got(server, tmp_path)
    server.files["/t.tsv"] = Served(TABLE, mark='"1"')
    server.asked.clear()
    assert got(server, tmp_path).read_bytes() == TABLE
    assert server.ranges("/t.tsv") == ["bytes=3000-"]


@pytest.mark.parametrize("marks", [{"mark": '"2"'}, {"mark": ""}, {"mark": 'W/"2"', "last_modified": "Tue, 01 Jan 2030 00:00:00 GMT"}])
def test_a_file_that_was_changed_meanwhile_is_not_glued_to_what_came_of_the_old_one(server, tmp_path, marks):
    server.files["/t.tsv"] = Served(TABLE, mark='"1"', cut_after=[3000] + [0] * 9)
    with pytest.raises(FetchFailed):
        got(server, tmp_path)
    server.files["/t.tsv"] = Served(CHANGED, **marks)
    assert got(server, tmp_path).read_bytes() == CHANGED


@pytest.mark.parametrize("md5", ["", MD5])
@pytest.mark.parametrize("left", [b"", b"index\tq" + b"x" * 3000, b"y" * len(TABLE), b"z" * (len(TABLE) + 7)])
def test_an_empty_foreign_or_too_long_partial_never_becomes_the_file(server, tmp_path, left, md5):
    """Before: where no md5 is known, any partial that was not shorter than the file was taken for it."""
    (tmp_path / "t.tsv.partial").write_bytes(left)
    server.files["/t.tsv"] = Served(TABLE)
    assert got(server, tmp_path, md5=md5).read_bytes() == TABLE


def test_a_range_that_begins_elsewhere_is_not_appended(server, tmp_path):
    server.files["/t.tsv"] = Served(TABLE, mark='"1"', cut_after=[3000], shifted=5)
    assert got(server, tmp_path).read_bytes() == TABLE


def test_an_answer_that_is_compressed_all_the_same_is_the_file_and_not_its_compression(server, tmp_path):
    server.files["/t.tsv"] = Served(gzip.compress(TABLE), mark='"1"', encoding="gzip")
    assert got(server, tmp_path).read_bytes() == TABLE


def test_two_processes_do_not_write_one_partial(server, tmp_path):
    server.files["/t.tsv"] = Served(TABLE)
    with (tmp_path / "t.tsv.partial").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(FetchFailed, match=r"t\.tsv\.partial is being written by another process"):
            got(server, tmp_path)
    assert got(server, tmp_path).read_bytes() == TABLE


# ---- something else ----


def test_a_download_with_another_checksum_is_kept_aside_and_never_put_in_place(server, tmp_path):
    server.files["/t.tsv"] = Served(TABLE)
    with pytest.raises(FetchFailed, match="has md5 .*, the published file 000"):
        got(server, tmp_path, md5="0" * 32)
    assert [one.name for one in tmp_path.iterdir()] == ["t.tsv.wrong"]
    assert (tmp_path / "t.tsv.wrong").read_bytes() == TABLE


def test_a_page_with_status_200_is_refused_and_what_came_before_it_is_kept(server, tmp_path):
    """Before: the page was the file, and 3,000 bytes of the real one were gone."""
    server.files["/t.tsv"] = Served(TABLE, mark='"1"', cut_after=[3000] + [0] * 9)
    with pytest.raises(FetchFailed):
        got(server, tmp_path)
    page = b"<!DOCTYPE html><html><title>Log in</title></html>"
    server.files["/t.tsv"] = Served(page, headers={"Content-Type": "text/html; charset=utf-8"})
    with pytest.raises(FetchFailed, match="it is a web page .*is there a login"):
        got(server, tmp_path)
    assert (tmp_path / "t.tsv.partial").stat().st_size == 3000


def _parquet() -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"a": list(range(100))}), buffer)
    return buffer.getvalue()


def _zip(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            # Without the time of day: the bytes stand in the names of tests, which both workers must find alike.
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("t.tsv", b"<html><body>busy</body></html>", "it is a web page"),
        ("t.tsv", b"name,value\n1,2\n", "is no header of a table with the column index or question"),
        ("t.tsv", b"", "it is empty"),
        ("t.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "the pointer that git keeps"),
        ("t.parquet", _parquet()[:-40], "does not end with PAR1"),
        ("t.parquet", b"PAR1" + _parquet()[-8:], "its end points outside it"),
        ("t.zip", _zip(a=b"1" * 999)[:-30], "no zip archive that opens"),
        ("t.tar.gz", b"\x1f\x8b" + b"0" * 600, "no tar archive that opens"),
        ("t.json", b"<?xml version='1.0'?><Error>AccessDenied</Error>", "it is a web page"),
        ("t.json", b"Too many requests", "begins with 'Too many requests'; JSON of data begins with"),
        ("t.json", b'[{"messages": [', "does not end with ] or }"),
    ],
)  # fmt: skip
def test_what_is_not_what_its_name_says_is_refused_where_no_checksum_is_known(server, tmp_path, name, data, said):
    server.files[f"/{name}"] = Served(data)
    with pytest.raises(FetchFailed, match=said):
        got(server, tmp_path, name=name)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [("t.parquet", _parquet()), ("t.zip", _zip(a=b"1")), ("t.json", b"\xef\xbb\xbf[1]\n"), ("t.jsonl", b'{"a": 1}\n{"a": 2}\n'), ("t.bin", b"x")],
)  # fmt: skip
def test_what_is_what_its_name_says_is_taken(server, tmp_path, name, data):
    server.files[f"/{name}"] = Served(data, length=False)
    assert got(server, tmp_path, name=name).read_bytes() == data


def test_a_file_that_is_there_but_is_something_else_is_named_and_left_alone(server, tmp_path):
    (tmp_path / "t.tsv").write_bytes(b"<html>yesterday's page</html>")
    with pytest.raises(FetchFailed, match=r"t\.tsv is there, but it is a web page .*move it away"):
        got(server, tmp_path)
    assert (tmp_path / "t.tsv").read_bytes() == b"<html>yesterday's page</html>"


# ---- refused ----


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_a_refusal_stops_at_once_and_says_what_to_do(server, tmp_path, status):
    """Before: asked five times."""
    server.files["/t.tsv"] = Served(TABLE, statuses=[status] * 9)
    with pytest.raises(FetchFailed, match=rf"t\.tsv: {status} .*open it in a browser, and save it as .*t\.tsv"):
        got(server, tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_an_outage_is_waited_for_and_named_after_some_attempts(server, tmp_path, status):
    server.files["/t.tsv"] = Served(TABLE, statuses=[status] * 2)
    assert got(server, tmp_path).read_bytes() == TABLE
    (tmp_path / "t.tsv").unlink()
    server.asked.clear()
    server.files["/t.tsv"] = Served(TABLE, statuses=[status] * 9)
    with pytest.raises(FetchFailed, match=rf"t\.tsv: {status} .*the same command goes on"):
        got(server, tmp_path)
    assert len(server.asked) == 5


def test_a_server_is_asked_again_when_it_says_and_not_at_all_if_that_is_tomorrow(server, tmp_path):
    server.files["/t.tsv"] = Served(TABLE, statuses=[429], headers={"Retry-After": "1"})
    began = time.monotonic()
    got(server, tmp_path)
    assert time.monotonic() - began >= 1
    (tmp_path / "t.tsv").unlink()
    server.asked.clear()
    server.files["/t.tsv"] = Served(TABLE, statuses=[429], headers={"Retry-After": "86400"})
    with pytest.raises(FetchFailed, match="in 86,400 s"):
        got(server, tmp_path)
    assert len(server.asked) == 1


def test_a_disk_without_room_is_said_before_anything_is_loaded(server, tmp_path):
    file = RemoteFile(name="t.bin", url=f"{server.url}/t.bin", size=1 << 55, checksum="sha256:0")
    server.files["/t.bin"] = Served(b"x", headers={"X": "1"}, length=False)
    with pytest.raises(FetchFailed, match=r"needs 36,028,797,018,963,968 more bytes, .* has room for"):
        download(file, tmp_path, client=server.client, pause_s=0)


def test_a_disk_that_fills_up_keeps_what_has_come(server, tmp_path):
    """A real full disk: /dev/full takes no byte."""
    (tmp_path / "t.tsv.partial").symlink_to("/dev/full")
    server.files["/t.tsv"] = Served(TABLE)
    with pytest.raises(FetchFailed, match=r"there is no room for .*t\.tsv: No space left on device"):
        got(server, tmp_path)


def test_a_password_in_an_address_is_not_shown(server, tmp_path):
    url = server.url.replace("http://", "http://me:s3cret-pass@") + "/none.tsv?token=abcdef123456"
    with pytest.raises(FetchFailed) as caught:
        fetch(FetchedFile(file="t.tsv", url=url), tmp_path, pause_s=0)
    assert "404" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert "abcdef" not in str(caught.value)


def test_an_unknown_name_lists_those_that_can_be_had():
    with pytest.raises(SystemExit, match="no address for none; there are vstar.*deepeyesv2_rl.*OWNER/NAME"):
        main(["none"])


# ---- the hub ----

REPO = "honglyhly/DeepEyesV2_RL"
RL = {"perception_all_1.parquet": _parquet(), "reason.parquet": _parquet(), "README.md": b"# a card\n", ".gitattributes": b"* lfs\n"}


@pytest.fixture
def hub(server, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_averysecrettoken")
    server.hub(REPO, RL)
    return server


def fetched(*words) -> int:
    with pytest.raises(SystemExit) as exited:
        main([*map(str, words)])
    return exited.value.code


def test_a_training_set_comes_from_the_mirror_with_the_token_which_no_other_host_sees(hub, tmp_path, capfd):
    hub.token = "hf_averysecrettoken"
    assert fetched("DeepEyesV2_RL", "--out", tmp_path) == 0
    assert {one.name for one in tmp_path.iterdir()} == {"perception_all_1.parquet", "reason.parquet", "README.md", ".fetched.json"}
    assert (tmp_path / "reason.parquet").read_bytes() == RL["reason.parquet"]
    by_host = {path: headers.get("authorization") for path, headers in hub.asked}
    assert by_host[f"/datasets/{REPO}/resolve/{COMMIT}/reason.parquet"] == "Bearer hf_averysecrettoken"
    assert by_host[f"/cdn/{REPO}/reason.parquet"] is None
    hub.asked.clear()
    assert fetched(REPO, "--out", tmp_path) == 0
    assert not [path for path, _ in hub.asked if path.startswith("/datasets")]
    assert "3 files" in capfd.readouterr().err


def test_a_file_of_the_hub_that_broke_off_goes_on_in_the_next_process(hub, tmp_path, capfd):
    """`huggingface_hub` 1.33 itself begins anew."""
    path = f"/cdn/{REPO}/reason.parquet"
    hub.files[path].cut_after = [300] + [0] * 9
    command = [sys.executable, "-m", "data.fetch", REPO, "--out", str(tmp_path), "--include", "reason.*"]
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    first = subprocess.Popen(command, cwd=ROOT, env=environment)
    partial, until = tmp_path / "reason.parquet.partial", time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size == 300):
        assert time.monotonic() < until
        time.sleep(0.02)
    first.kill()
    first.wait()
    hub.files[path].cut_after = []
    hub.asked.clear()
    assert fetched(REPO, "--out", tmp_path, "--include", "reason.*") == 0
    assert hub.ranges(path) == ["bytes=300-"]
    assert (tmp_path / "reason.parquet").read_bytes() == RL["reason.parquet"]
    assert not (tmp_path / "perception_all_1.parquet").exists()


def test_a_file_of_the_hub_with_another_content_is_found_out(hub, tmp_path, capfd):
    other = bytearray(RL["reason.parquet"])
    other[50] ^= 1
    hub.files[f"/cdn/{REPO}/reason.parquet"].data = bytes(other)
    assert fetched(REPO, "--out", tmp_path) == 1
    assert "reason.parquet: it has sha256" in capfd.readouterr().err
    assert (tmp_path / "perception_all_1.parquet").exists()
    assert not (tmp_path / "reason.parquet").exists()


@pytest.mark.parametrize(("token", "repo", "said"), [
    ("another", REPO, "401 .*accept its licence.*huggingface.co/datasets/honglyhly/DeepEyesV2_RL.*set HF_TOKEN"),
    ("hf_averysecrettoken", "nobody/nothing", "404 .*renamed, is private .*the mirror .*HF_ENDPOINT"),
])  # fmt: skip
def test_a_set_that_is_not_given_says_what_to_do_and_is_asked_for_once(hub, tmp_path, capfd, token, repo, said):
    hub.token = token
    assert fetched(repo, "--out", tmp_path) == 1
    err = capfd.readouterr().err
    assert re.search(said, err.replace("\n", " ")), err
    assert "averysecret" not in err
    assert len(hub.asked) == 1


def test_a_gated_file_says_what_to_do(hub, tmp_path, capfd):
    hub.files[f"/datasets/{REPO}/resolve/{COMMIT}/reason.parquet"].statuses = [403] * 9
    assert fetched(REPO, "--out", tmp_path) == 1
    assert "403 Forbidden; accept its licence" in capfd.readouterr().err


def test_an_outage_of_the_hub_is_waited_for(hub, tmp_path):
    hub.api_statuses = [503, 429, 500]
    assert len(fetch_set(REPO, tmp_path, FetchOptions(pause_s=0))) == 3


def test_what_is_no_hub_is_called_so(server, hub, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/blog")
    assert fetched(REPO, "--out", tmp_path) == 1
    assert "HF_ENDPOINT" in capfd.readouterr().err


def test_offline_nobody_is_asked_and_what_is_missing_is_named(hub, tmp_path, capfd):
    """In processes of their own, as `huggingface_hub` reads the variable when it is imported."""

    def run(**more):
        command = [sys.executable, "-m", "deepeyes.cli", "data", "fetch", REPO, "--out", str(tmp_path / "rl")]
        environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | more
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
        return done.returncode, done.stderr

    code, err = run(HF_HUB_OFFLINE="1")
    assert (code, hub.asked) == (1, [])
    assert "HF_HUB_OFFLINE is set, and" in err
    assert run() == (0, f"{REPO} at {COMMIT[:12]}: 3 files, 0.00 MiB\n")
    hub.asked.clear()
    assert run(HF_HUB_OFFLINE="1")[0] == 0
    (tmp_path / "rl/reason.parquet").unlink()
    code, err = run(HF_HUB_OFFLINE="1")
    assert (code, hub.asked) == (1, [])
    assert "lacks reason.parquet; unset it" in err


def test_a_benchmark_of_the_hub_comes_from_the_mirror_too(hub, tmp_path):
    hub.files["/datasets/a/b/resolve/main/t.tsv"] = Served(TABLE)
    source = FetchedFile(file="t.tsv", url="https://huggingface.co/datasets/a/b/resolve/main/t.tsv", md5=MD5)
    assert fetch(source, tmp_path, pause_s=0).read_bytes() == TABLE
    assert hub.asked[0][1]["authorization"] == "Bearer hf_averysecrettoken"


def test_a_token_that_is_none_is_refused_unseen(hub, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_first hf_second")
    assert fetched(REPO, "--out", tmp_path) == 1
    err = capfd.readouterr().err
    assert "HF_TOKEN" in err
    assert "hf_second" not in err


def test_a_name_of_the_hub_that_leads_out_of_the_folder_is_refused(hub, tmp_path, capfd):
    hub.hub(REPO, {"../evil.parquet": _parquet()})
    assert fetched(REPO, "--out", tmp_path / "rl") == 1
    assert "'../evil.parquet', which leads out of" in capfd.readouterr().err
    assert not (tmp_path / "evil.parquet").exists()


# ---- archives ----


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_with_a_name_that_leads_out_is_refused_before_a_byte_is_written(tmp_path, name, kind):
    archive = tmp_path / f"images.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.writestr("good.png", b"1")
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            zipped.writestr(entry, b"2")
    else:
        with tarfile.open(archive, "w") as tarred:
            for one in ("good.png", name):
                entry = tarfile.TarInfo(one)
                entry.size = 1
                tarred.addfile(entry, io.BytesIO(b"1"))
    with pytest.raises(FetchFailed, match=r"images\.(zip|tar) names a file .*evil\.png.*leads out of"):
        unpack(archive)
    assert [one.name for one in tmp_path.iterdir()] == [archive.name]


def test_links_and_devices_of_an_archive_are_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        entry = zipfile.ZipInfo("link.png")
        entry.external_attr = 0o120777 << 16
        zipped.writestr(entry, "/etc/passwd")
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / f"b{kind.decode()}.tar", "w") as tarred:
            entry = tarfile.TarInfo("link.png")
            entry.type, entry.linkname = kind, "/etc/passwd"
            tarred.addfile(entry)
    archives = sorted(tmp_path.iterdir())
    for archive in archives:
        with pytest.raises(FetchFailed, match=r"holds 'link\.png', which is a link or a device"):
            unpack(archive)
    assert sorted(tmp_path.iterdir()) == archives


def test_a_link_in_the_folder_leads_nothing_of_the_archive_out_of_it(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a").symlink_to(tmp_path / "out")
    (tmp_path / "images.zip").write_bytes(_zip(**{"a/evil.png": b"1"}))
    with pytest.raises(FetchFailed, match=r"holds 'a/evil\.png', which leads out of .*images by a link"):
        unpack(tmp_path / "images.zip")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("prefix", ["", "images/"])
def test_unpacking_makes_one_folder_and_a_second_time_nothing(tmp_path, prefix):
    files = {f"{prefix}{number}/a.png": bytes([number]) * 50 for number in range(3)} | {"__MACOSX/._a": b"x"}
    (tmp_path / "images.zip").write_bytes(_zip(**files))
    assert unpack(tmp_path / "images.zip") == (tmp_path / "images", 3)
    assert (tmp_path / "images/1/a.png").read_bytes() == b"\1" * 50
    (tmp_path / "images/2/a.png").write_bytes(b"cut")
    assert unpack(tmp_path / "images.zip") == (tmp_path / "images", 1)
    assert unpack(tmp_path / "images.zip") == (tmp_path / "images", 0)


def test_a_broken_member_is_named_and_not_left_behind(tmp_path):
    data = bytearray(_zip(**{"a.png": os.urandom(5000), "b.png": b"1"}))
    data[2000] ^= 255
    (tmp_path / "images.zip").write_bytes(data)
    with pytest.raises(FetchFailed, match=r"'a\.png' is broken \(Bad CRC-32"):
        unpack(tmp_path / "images.zip")
    assert not list((tmp_path / "images").iterdir())


def test_fetch_unpacks_when_it_is_asked_to(hub, tmp_path, capfd):
    hub.hub("a/pictures", {"images.zip": _zip(**{"images/1.png": b"1"}), "sft.json": b"[]"})
    assert fetched("a/pictures", "--out", tmp_path, "--unpack") == 0
    assert (tmp_path / "images/1.png").read_bytes() == b"1"
    assert "1 files unpacked" in capfd.readouterr().out
