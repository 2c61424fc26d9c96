"""Recording: whole groups, what was lost always, one file for each writer, and nobody waits for a disk on the event loop."""

import asyncio
import errno
import itertools
import json
import subprocess
import sys
import time

import pytest

from agent.episode import Episode, run_episode
from agent.errors import ToolUnavailable
from agent.files import NotWritten
from agent.image_library import ImageLibrary, open_library
from agent.images import ImageFile
from agent.messages import Message
from agent.record_images import RecordImages, image_path, missing_stores, record_store
from agent.recorder import Recorder, RecordSettings
from agent.records import RolloutFacts
from agent.testing import ScriptedPolicy
from agent.trajectory import TrajectoryWriter, forget_after, read_rollouts, record_files
from tests.conftest import ROOT, png

SOME = RolloutFacts(step=1, group="g")


async def an_episode(*images: bytes, lost: bool = False) -> Episode:
    text = "<image>" * len(images) + "q"
    opening = (Message("user", text, tuple(map(ImageFile, images))),)
    said = ToolUnavailable("away") if lost else "<answer>a</answer>"
    return await run_episode(opening, policy=ScriptedPolicy(said), tools={})


def recorder(directory, said=None, **settings):
    announce = [].append if said is None else said.append
    return Recorder(directory, RecordSettings(**settings), announce=announce)


async def test_a_record_is_on_disk_when_it_was_awaited(tmp_path):
    one = recorder(tmp_path)
    assert await one.record(await an_episode(png()), RolloutFacts(step=3, group="g", reward=1.0))
    (found,) = read_rollouts(tmp_path)
    assert found.facts == RolloutFacts(step=3, group="g", reward=1.0)


async def test_thinning_keeps_every_nth_step_whole_groups_and_all_that_was_lost(tmp_path):
    one = recorder(tmp_path, every=2, share=0.5)
    good, bad = await an_episode(), await an_episode(lost=True)
    for step, group, session in itertools.product(range(1, 5), range(40), range(4)):
        await one.record(bad if session == 3 else good, RolloutFacts(step=step, group=f"g{step}-{group}", sample=session))
    found = list(read_rollouts(tmp_path))
    assert sum(rollout.episode.failed for rollout in found) == 4 * 40
    kept = [rollout.facts for rollout in found if not rollout.episode.failed]
    assert {facts.step for facts in kept} == {2, 4}
    groups = [facts.group for facts in kept]
    assert all(groups.count(group) == 3 for group in groups)
    assert 20 < len(set(groups)) < 60
    again = recorder(tmp_path / "other", every=2, share=0.5)
    assert {group for group in {f"g2-{n}" for n in range(40)} if again.wants(step=2, group=group, lost=False)} <= set(groups)


async def test_each_writer_has_a_file_and_all_are_read(tmp_path):
    code = (
        "import asyncio, sys; from pathlib import Path; from agent.episode import Episode; "
        "from agent.recorder import Recorder, RecordSettings; from agent.records import RolloutFacts\n"
        "async def main():\n"
        "    one = Recorder(Path(sys.argv[1]), RecordSettings())\n"
        "    facts = [RolloutFacts(step=n, group=sys.argv[2]) for n in range(50)]\n"
        "    await asyncio.gather(*(one.record(Episode(opening=()), one_of) for one_of in facts))\n"
        "asyncio.run(main())"
    )
    TrajectoryWriter(tmp_path).write(await an_episode(), RolloutFacts(group="of an old run"))
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), f"p{n}"], cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
        for n in range(3)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(record_files(tmp_path)) == 4
    groups = [record.facts.group for record in read_rollouts(tmp_path)]
    assert {group: groups.count(group) for group in groups} == {"of an old run": 1, "p0": 50, "p1": 50, "p2": 50}


async def test_the_event_loop_is_free_while_a_disk_is_slow(tmp_path, monkeypatch):
    def slow(self, episode, facts):
        time.sleep(0.3)

    monkeypatch.setattr(TrajectoryWriter, "write", slow)
    one, episode, ticks = recorder(tmp_path), await an_episode(), 0
    writing = asyncio.gather(*(one.record(episode, SOME) for _ in range(2)))
    while not writing.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert (await writing, one.lost) == ([True, True], 0)
    assert ticks > 20


async def test_a_disk_that_hangs_or_fails_loses_records_that_are_counted_and_never_the_rollout(tmp_path, monkeypatch):
    said = []
    one, episode = recorder(tmp_path, said, patience_s=0.05), await an_episode()

    def hangs(self, episode, facts):
        time.sleep(0.4)

    monkeypatch.setattr(TrajectoryWriter, "write", hangs)
    assert await asyncio.gather(*(one.record(episode, SOME) for _ in range(3))) == [False] * 3
    began = time.monotonic()
    assert not await one.record(episode, SOME)
    assert time.monotonic() - began < 0.04  # nobody queues behind a disk that hangs
    one.close()

    def full(self, episode, facts):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TrajectoryWriter, "write", full)
    other = recorder(tmp_path, said)
    assert not await other.record(episode, SOME)
    assert (one.lost, other.lost) == (4, 1)
    assert ["training goes on" in text for text in said] == [True, True]
    assert "No space left" in said[1]


async def test_large_images_are_kept_as_previews_and_small_ones_exactly(tmp_path):
    noise = ImageFile.from_pil(__import__("PIL.Image").Image.effect_noise((900, 700), 90).convert("RGB"))
    small = ImageFile(png(30, 20))
    one = recorder(tmp_path, max_pixels=100_000)
    await one.record(await an_episode(noise.data, small.data), SOME)
    (found,) = read_rollouts(tmp_path)
    large, exact = found.episode.opening[0].images
    assert exact == small
    assert large.mime == "image/jpeg"
    assert large.size == (358, 278)
    assert len(large.data) < len(noise.data) / 10
    line = json.loads(record_files(tmp_path)[0].read_text())
    assert line["opening"][0]["images"] == [noise.sha256, small.sha256]


async def test_an_image_that_the_runs_store_has_is_not_written_again(tmp_path):
    image = ImageFile(png(200, 200))
    store = tmp_path / "images"
    (store / image.sha256[:2]).mkdir(parents=True)
    (store / image.sha256[:2] / image.sha256).write_bytes(image.data)
    one = Recorder(tmp_path / "rollouts", RecordSettings(max_pixels=1024), run_store=store)
    await one.record(await an_episode(image.data, png(9, 9)), SOME)
    (found,) = read_rollouts(tmp_path / "rollouts")
    assert found.episode.opening[0].images == (image, ImageFile(png(9, 9)))
    assert not (tmp_path / "rollouts/previews").exists()
    assert sum(path.is_file() for path in (tmp_path / "rollouts/images").rglob("*")) == 1
    assert sum(path.is_file() for path in store.rglob("*")) == 1
    assert image_path(tmp_path / "rollouts", image.sha256) == store / image.sha256[:2] / image.sha256
    with pytest.raises(FileNotFoundError, match="no image 00"):
        image_path(tmp_path / "rollouts", "0" * 64)


async def test_a_resumed_run_forgets_the_steps_that_it_makes_again(tmp_path):
    writers = [TrajectoryWriter(tmp_path), TrajectoryWriter(tmp_path, shared=True)]
    for step, (number, writer) in itertools.product(range(1, 6), enumerate(writers)):
        writer.write(await an_episode(), RolloutFacts(step=step, group=f"w{number}"))
    single = tmp_path / "episodes.jsonl"
    single.write_bytes(single.read_bytes() + b'{"version": 2, "facts": {"step": 5')
    assert forget_after(tmp_path, 4) == 2
    steps = sorted((record.facts.step, record.facts.group) for record in read_rollouts(tmp_path))
    assert steps == [(step, group) for step in range(1, 5) for group in ("w0", "w1")]
    assert forget_after(tmp_path, 4) == 0
    assert forget_after(tmp_path / "nothing", 4) == 0
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".jsonl"}
    TrajectoryWriter(tmp_path).write(await an_episode(), RolloutFacts(step=5, group="w0"))
    assert [record.facts.step for record in read_rollouts(tmp_path) if record.facts.group == "w0"] == [1, 2, 3, 4, 5]


async def test_images_go_into_the_store_of_the_data_and_are_found_there_wherever_both_are_moved(tmp_path):
    library, seen = open_library(tmp_path / "a/store"), ImageFile(png(200, 200))
    library.put(seen.data)
    crop = png(30, 20)
    one = Recorder(tmp_path / "a/run/rollouts", RecordSettings(), store=library.root)
    await one.record(await an_episode(seen.data, crop), SOME)
    assert library.path(ImageFile(crop).sha256).read_bytes() == crop
    assert not [path for path in (tmp_path / "a/run").rglob("*/images/*") if path.is_file()]
    (tmp_path / "a").rename(tmp_path / "b")
    (found,) = read_rollouts(tmp_path / "b/run/rollouts")
    assert found.episode.opening[0].images == (seen, ImageFile(crop))
    assert missing_stores(tmp_path / "b/run/rollouts") == ""


async def test_a_record_without_its_store_says_in_a_line_which_one_is_missing_and_where_to_write_its_place(tmp_path):
    library, crop = open_library(tmp_path / "store"), ImageFile(png())
    TrajectoryWriter(
        tmp_path / "run", images=RecordImages(tmp_path / "run", fanned=False, store=library.root)
    ).write(await an_episode(crop.data))
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    (tmp_path / "store").rename(tmp_path / "away")
    (found,) = read_rollouts(tmp_path / "elsewhere")
    line = missing_stores(tmp_path / "elsewhere")
    assert f"the store {tmp_path / 'store'}, which is not there" in line
    assert "\n" not in line
    with pytest.raises(FileNotFoundError, match="which is not there: bring it, or write"):
        _ = found.episode.opening[0].images[0].data
    note = tmp_path / "elsewhere/image_stores.json"
    note.write_text(note.read_text().replace(str(tmp_path / "store"), str(tmp_path / "away")))
    (found,) = read_rollouts(tmp_path / "elsewhere")
    assert found.episode.opening[0].images == (crop,)


async def test_a_store_that_cannot_be_written_to_is_said_once_and_images_lie_beside_the_records(tmp_path, monkeypatch):
    library, seen, said = open_library(tmp_path / "store"), ImageFile(png(200, 200)), []
    library.put(seen.data)

    def refuses(self, data, *, durable=True):
        raise NotWritten(self.root, OSError(errno.EROFS, "Read-only file system"))

    monkeypatch.setattr(ImageLibrary, "put", refuses)
    one = Recorder(tmp_path / "run", RecordSettings(), store=library.root, announce=said.append)
    for size in range(5, 9):
        assert await one.record(await an_episode(seen.data, png(size, size)), SOME)
    assert one.lost == 0
    assert len(said) == 1
    assert "Read-only file system" in said[0]
    assert str(tmp_path / "run/images") in said[0]
    assert sum(path.is_file() for path in (tmp_path / "run/images").rglob("*")) == 4
    for rollout in read_rollouts(tmp_path / "run"):
        assert rollout.episode.opening[0].images[0] == seen


async def test_what_a_record_of_somebody_else_calls_a_store_is_read_only_where_it_is_one(tmp_path):
    secret = ImageFile(png())
    folder = tmp_path / "private"
    (folder / "images" / secret.sha256[:2]).mkdir(parents=True)
    (folder / "images" / secret.sha256[:2] / secret.sha256).write_bytes(secret.data)
    run = tmp_path / "run"
    TrajectoryWriter(run)
    for said in (f'{{"stores": [{{"path": "{folder}", "from_here": "../private"}}]}}', '{"stores": [{"path": "\\u0000"}]}',
                 "[" * 9000, "[]", '{"stores": 3}'):  # fmt: skip
        (run / "image_stores.json").write_text(said)
        with pytest.raises(FileNotFoundError, match="no image"):
            image_path(run, secret.sha256)


def test_the_store_of_records_is_the_datas_or_the_one_that_is_named_and_a_folder_that_is_none_is_refused(tmp_path):
    library = open_library(tmp_path / "store")
    data = [tmp_path / "plain.parquet", library.root / "sets/rl/rl.parquet"]
    assert record_store("data", data) == library.root
    assert record_store("data", data[:1]) is None
    assert record_store("run", data) is None
    assert record_store(str(library.root), []) == library.root
    with pytest.raises(ValueError, match="is no store of images"):
        record_store(str(tmp_path), [])
