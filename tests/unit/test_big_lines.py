"""What others recorded may hold one enormous line: readers name it, count it, go on, and never hold it."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from agent.lines import MOST_LINE_BYTES, MOST_VALUES, bounded_lines
from agent.records import RolloutFacts
from agent.scores import read_episode_scores
from agent.search.corpus import read_corpus
from agent.search.recording import AskedQuestion, CorruptEntry, Recording, Response
from agent.trajectory import TrajectoryWriter, forget_after, read_rollouts
from cold_start.check_data import conversation_problems
from judge.cache import SqliteCache
from tests.recorded_runs import episode
from viewer.app import make_app
from viewer.index import EpisodeIndex
from viewer.static_page import write_episodes_page

ROOT = Path(__file__).parents[2]
BIG = 200 << 20
GROWTH = 100 << 20
"""Of memory, while a file with a line of twice that size is read."""
ODD = {
    "no values but brackets": b"[" * 100_000 + b"\n",
    "many values": b'{"version": 3, "x": [' + b"[]," * (MOST_VALUES + 1) + b"[]]}\n",
    "no text": b"\xff\xfe\x00\n",
}


def big_line(path):
    """Append 200 MB of a hole and a line end, in no time."""
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + BIG)
        file.seek(0, os.SEEK_END)
        file.write(b"\n")


@pytest.fixture
def run(tmp_path):
    """Two episodes, and between them a line of 200 MB and three odd ones."""
    writer = TrajectoryWriter(tmp_path / "run")
    writer.write(episode("a", code="print(1)"), RolloutFacts(item_id="first", step=1))
    path = tmp_path / "run/episodes.jsonl"
    big_line(path)
    with path.open("ab") as file:
        file.writelines(ODD.values())
    TrajectoryWriter(tmp_path / "run").write(episode("a", code="print(1)"), RolloutFacts(item_id="last", step=2))
    return tmp_path / "run"


def test_a_record_of_200_megabytes_and_odd_ones_are_named_and_left_out(run, caplog):
    assert [rollout.facts.item_id for rollout in read_rollouts(run)] == ["first", "last"]
    assert f"episodes.jsonl:2 cannot be read and is left out: it has {BIG + 1:,} bytes; at most {MOST_LINE_BYTES:,}" in caplog.text
    assert f"episodes.jsonl:4 cannot be read and is left out: it holds more than {MOST_VALUES:,} values" in caplog.text
    assert [f"episodes.jsonl:{number} " in caplog.text for number in range(1, 7)] == [False, True, True, True, True, False]


def test_the_viewer_lists_what_can_be_read_and_says_how_many_lines_cannot(run):
    with TestClient(make_app([run]), base_url="http://localhost") as client:
        for _ in range(2):  # and counts nothing twice
            (found,) = client.get("/api/runs").json()
            assert (found["episodes"], found["unreadable"]) == (2, 4)
        for row in client.get("/api/runs/run/episodes").json()["rows"]:
            assert client.get("/api/runs/run/episode", params={"episode": row["episode_id"]}).status_code == 200
    again = EpisodeIndex(run)
    assert (again.refresh(), again.unreadable) == (2, 4)
    again.close()
    assert write_episodes_page(run, run / "page.html", limit=10) == 2
    assert "4 lines cannot be read and are left out" in (run / "page.html").read_text()


def test_a_line_that_is_still_being_written_is_read_when_it_is_whole(run):
    index = EpisodeIndex(run)
    path = run / "episodes.jsonl"
    with path.open("rb") as file:
        line = [line.text for line in bounded_lines(file) if line.text][-1]
    with path.open("ab") as file:
        file.write(line[:50])
    assert (index.refresh(), index.unreadable) == (2, 4)
    with path.open("ab") as file:
        file.write(line[50:])
    assert (index.refresh(), index.unreadable) == (3, 4)
    index.close()


def test_a_run_that_is_resumed_keeps_the_lines_that_nobody_can_read(run):
    size = (run / "episodes.jsonl").stat().st_size
    assert forget_after(run, 1) == 1
    assert [rollout.facts.item_id for rollout in read_rollouts(run)] == ["first"]
    assert size - 20_000 < (run / "episodes.jsonl").stat().st_size < size


def test_an_image_that_is_lost_or_too_large_stops_no_page(run):
    for path in (run / "images").glob("*"):
        path.unlink()
        with path.open("wb") as file:
            file.truncate(BIG)
        break
    assert write_episodes_page(run, run / "page.html", limit=10) == 2
    assert "an image cannot be shown" in (run / "page.html").read_text()


def test_a_score_and_a_page_of_200_megabytes_are_named_and_left_out(tmp_path, caplog):
    scores, corpus = tmp_path / "scores.jsonl", tmp_path / "pages.jsonl"
    for path, row in ((scores, {"item_id": "a", "correct": True}), (corpus, {"title": "a", "text": "b"})):
        path.write_text(json.dumps(row) + "\n")
        big_line(path)
        with path.open("ab") as file:
            file.writelines([ODD["no values but brackets"], json.dumps(row).encode() + b"\n"])
    assert len(list(read_episode_scores(scores))) == 2
    assert f"scores.jsonl:2 cannot be read and is left out: it has {BIG + 1:,} bytes" in caplog.text
    said = []
    assert len(list(read_corpus(corpus, said.append))) == 2
    assert [text.split(":")[1] for text in said] == ["2", "3 is no JSON"]


def test_a_conversation_of_200_megabytes_is_left_out_with_its_reason():
    conversation = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x" * 5_000_000}]}
    assert conversation_problems(conversation) == ["message 1 has 5,000,000 characters; at most 4,000,000 are looked at"]


def question(query):
    return AskedQuestion(provider="p", kind="search", query=query, options={})


@pytest.fixture
def recording(tmp_path):
    """Entries that are good, too large, and of another form but with the right checksum."""
    path = tmp_path / "r.sqlite"
    made = Recording(path, writable=True)
    for name in ("good", "large", "odd"):
        made.put(question(name), Response([{"title": name}]))
    made.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE entries SET response = CAST(zeroblob(?) AS TEXT) WHERE query = 'large'", (64 << 20,))
    checksum = "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"  # of []
    db.execute("UPDATE entries SET response = '[]', checksum = ? WHERE query = 'odd'", (checksum,))
    db.commit()
    db.close()
    return path


def test_an_entry_of_a_recording_that_is_too_large_or_odd_is_named_and_counted(recording, tmp_path, caplog):
    opened = Recording(recording, writable=False)
    assert opened.get(question("good")).content == [{"title": "good"}]
    with pytest.raises(CorruptEntry, match="the entry of 'large' in .* cannot be read: string or blob too big"):
        opened.get(question("large"))
    with pytest.raises(CorruptEntry, match="the entry of 'odd' in .* cannot be read: it is none"):
        opened.get(question("odd"))
    assert [entry["query"] for entry in opened.export()] == ["good"]
    assert opened.damaged == 2
    assert question("large").key[:64] in caplog.text
    into = Recording(tmp_path / "into.sqlite", writable=True)
    assert into.merge(opened) == (1, 0)
    into.put(question("new"), Response("x" * (9 << 20)))
    assert "is too large" in caplog.text
    assert into.get(question("new")) is None
    into.close()
    opened.close()


async def test_a_verdict_that_is_too_large_is_passed_over(tmp_path, caplog):
    cache = SqliteCache(tmp_path / "judge.sqlite")
    await cache.put("good", {"said": "CORRECT"})
    await cache.put("large", {"said": "CORRECT", "reply": "x" * (2 << 20)})
    db = sqlite3.connect(tmp_path / "judge.sqlite")
    db.execute("INSERT INTO verdicts VALUES ('foreign', CAST(zeroblob(?) AS TEXT)), ('deep', ?)", (64 << 20, "[" * 100_000))
    db.commit()
    db.close()
    with caplog.at_level(logging.WARNING):
        assert await cache.get("good") == {"said": "CORRECT"}
        assert [await cache.get(name) for name in ("large", "foreign", "deep")] == [None] * 3
    assert "passed over (foreign): string or blob too big" in caplog.text
    await cache.aclose()


MEASURED = """
import asyncio, resource, sys
from pathlib import Path
from agent.search.recording import AskedQuestion, CorruptEntry, Recording
from agent.trajectory import read_rollouts
from judge.cache import SqliteCache
from viewer.index import EpisodeIndex
from viewer.static_page import write_episodes_page
run, recording = map(Path, sys.argv[1:])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert len(list(read_rollouts(run))) == 2
assert EpisodeIndex(run).refresh() == 2
assert write_episodes_page(run, run / "page.html", limit=10) == 2
opened = Recording(recording, writable=False)
try:
    opened.get(AskedQuestion(provider="p", kind="search", query="large", options={}))
except CorruptEntry:
    pass
assert len(list(opened.export())) == 1
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_no_reader_holds_what_it_leaves_out(run, recording):
    command = [sys.executable, "-W", "ignore", "-c", MEASURED, str(run), str(recording)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) < GROWTH
