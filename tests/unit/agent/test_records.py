"""What is read out of a recording is what was written into it, by any version; what is not is said."""

import json
import logging
import shutil
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.episode import Episode, Outage, StopReason, Turn
from agent.episode_rows import NewerRecord, UnreadableRecord, ended_as
from agent.images import ImageFile
from agent.messages import Message
from agent.policy import Reply
from agent.protocol import FinalAnswer, Malformed, ToolCall
from agent.records import EpisodeKey, Rollout, RolloutFacts, head_of, parse_head, parse_rollout, to_line
from agent.trajectory import RecordReader, TrajectoryWriter, read_rollouts, record_files
from tests.conftest import ROOT, png

RECORDED = ROOT / "tests/recorded"
ENDS = st.one_of(
    st.sampled_from([reason for reason in StopReason if reason is not StopReason.FAILED]),
    st.builds(Outage, reason=st.text(min_size=1).filter(str.strip)),
)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=30)
WHOLE_TEXTS = st.text(max_size=30)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXTS, lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner))
ACTIONS = st.one_of(
    st.builds(FinalAnswer, TEXTS), st.builds(ToolCall, TEXTS, st.dictionaries(TEXTS, JSON)), st.builds(Malformed, TEXTS, st.none() | TEXTS)
)
SECONDS = st.floats(0, 1e6).map(lambda value: round(value, 4))
IMAGE = ImageFile(png())


@st.composite
def turns(draw):
    ids = draw(st.lists(st.integers(0, 2**31 - 1), max_size=5))
    reply = Reply(
        text=draw(TEXTS), finish=draw(st.sampled_from(["stop", "length"])), primer=draw(TEXTS), token_ids=tuple(ids),
        logprobs=tuple(draw(st.lists(st.floats(-50, 0), min_size=len(ids), max_size=len(ids)))), num_tokens=len(ids),
        context_ids=tuple(draw(st.lists(st.integers(0, 2**31 - 1), max_size=5))), num_prompt_tokens=draw(st.integers(0, 9)),
    )  # fmt: skip
    shown = draw(st.none() | st.just(Message("user", "<image> seen", (IMAGE,))))
    return Turn(reply=reply, action=draw(ACTIONS), observation=shown, tool_error=draw(TEXTS), reply_s=draw(SECONDS), at_s=draw(SECONDS))


ROLLOUTS = st.builds(
    Rollout,
    st.builds(
        Episode, opening=st.just((Message("system", "s"), Message("user", "<image>\nq?", (IMAGE,)))), turns=st.lists(turns(), max_size=3),
        end=ENDS, answer=st.none() | TEXTS, started_at=st.floats(0, 2e9).map(lambda value: round(value, 3)), wall_s=SECONDS,
    ),
    st.builds(
        RolloutFacts, item_id=WHOLE_TEXTS, source=WHOLE_TEXTS, category=WHOLE_TEXTS, gold=WHOLE_TEXTS, sample=st.integers(0, 99),
        step=st.none() | st.integers(-1, 999), group=WHOLE_TEXTS, validation=st.booleans(), correct=st.none() | st.booleans(),
        score=st.none() | st.floats(0, 1), reward=st.none() | st.floats(-9, 9), decided_by=WHOLE_TEXTS,
    ),
)  # fmt: skip


def read(line):
    return parse_rollout(line, lambda sha256: {IMAGE.sha256: IMAGE}[sha256])


@given(ROLLOUTS)
def test_any_rollout_is_read_as_it_was_written(rollout):
    line = to_line(rollout)
    assert line.count(b"\n") == 1
    assert read(line) == rollout
    said = rollout.episode.answer
    shown = said if said is None else said.encode("utf-8", "replace").decode()
    told = replace(head_of(rollout), answer=shown, failure=parse_head(line).failure, tools=parse_head(line).tools)
    assert parse_head(line) == told


@given(ROLLOUTS, st.data())
def test_a_line_that_was_cut_off_anywhere_is_never_taken_for_a_record(rollout, data):
    line = to_line(rollout)
    cut = line[: data.draw(st.integers(0, len(line) - 2))]
    for parse in (parse_head, read):
        with pytest.raises(UnreadableRecord):
            parse(cut)


@given(ROLLOUTS, st.data())
def test_a_line_with_a_byte_of_another_is_refused_or_says_the_same_in_head_and_whole(rollout, data):
    line = bytearray(to_line(rollout))
    place, other = data.draw(st.integers(0, len(line) - 2)), data.draw(st.integers(0, 255))
    line[place] = other
    try:
        whole = read(bytes(line))
    except (UnreadableRecord, KeyError):
        return
    except NewerRecord:
        assert b'"version": 3' not in line
        return
    assert parse_head(bytes(line)).stop_reason == whole.episode.stop_reason


@given(ROLLOUTS)
def test_a_line_that_was_written_anew_by_another_program_is_still_read(rollout):
    row = json.loads(to_line(rollout))
    line = json.dumps(dict(reversed(row.items())), indent=None, separators=(",", ":")).encode() + b"\n"
    assert read(line) == rollout
    assert parse_head(line).facts == rollout.facts


# ---- how an episode ended ----


@given(st.sampled_from(StopReason), st.text(max_size=5))
def test_a_failure_without_a_failed_end_or_the_other_way_round_cannot_be_read(stop_reason, failure):
    if (stop_reason is StopReason.FAILED) == bool(failure.strip()) and (failure.strip() or not failure):
        episode = Episode(opening=(), end=ended_as(stop_reason, failure))
        assert (episode.stop_reason, episode.failure) == (stop_reason, failure)
    else:
        with pytest.raises(UnreadableRecord, match="failure"):
            ended_as(stop_reason, failure)


@given(ENDS)
def test_an_episode_failed_if_and_only_if_it_says_what_broke(end):
    episode = Episode(opening=(), end=end)
    assert episode.failed == (episode.stop_reason is StopReason.FAILED) == bool(episode.failure) == (episode.outage is not None)


def test_an_episode_cannot_be_made_that_failed_for_no_reason():
    with pytest.raises(ValueError, match="ends with an Outage"):
        Episode(opening=(), end=StopReason.FAILED)
    with pytest.raises(ValueError, match="no reason"):
        Outage(reason=" ")
    assert Episode(opening=()).failure.startswith("Unfinished")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"failure": "away"}, "stop_reason is 'answered', and yet there is a failure"),
        ({"stop_reason": "failed"}, "no failure says what broke"),
        ({"stop_reason": "finished"}, "'finished' is not a valid StopReason"),
        ({"num_turns": "two"}, "num_turns: Input should be a valid integer"),
        ({"facts": {"accuracy": 1.0}}, "accuracy: Unexpected keyword argument"),
        ({"facts": {"sample": "0"}}, "sample: Input should be a valid integer"),
        ({"facts": {"correct": 1}}, "correct: Input should be a valid boolean"),
    ],
)
def test_a_record_that_contradicts_itself_or_has_another_shape_is_refused_with_what_is_wrong(changed, message):
    row = json.loads(to_line(Rollout(Episode(opening=(), end=StopReason.ANSWERED, answer="a"))))
    with pytest.raises(UnreadableRecord, match=message):
        parse_head(json.dumps(row | changed).encode() + b"\n")


# ---- older and newer versions ----


def test_rollouts_of_version_2_are_read_under_todays_names():
    found = list(read_rollouts(RECORDED / "version_2/rollouts"))
    assert len(found) == 10
    first, restarted, lost = (rollout.facts for rollout in found[:3])
    assert first == RolloutFacts(
        item_id="perception-g1", source="perception", category="look", gold="red or crimson", step=1, group="g1-1", reward=0.2,
        correct=False, score=0.0, format=1.0, decided_by="rule:exact",
    )  # fmt: skip
    assert (restarted.restarts, restarted.sample, restarted.second_opinion, restarted.correct) == (1, 1, "correct", True)
    assert (lost.correct, lost.score, lost.reward, lost.decided_by) == (None, None, None, "nobody")
    assert found[2].episode.failure == "RuntimeError: the queue is full"
    assert [rollout.facts.validation for rollout in found].count(True) == 1
    assert found[1].episode.turns[0].reply.token_ids == (5, 6)
    assert found[0].episode.opening[1].images[0].size == (40, 40)


def test_chats_and_evaluations_of_version_2_are_read():
    (chat,) = read_rollouts(RECORDED / "version_2/chat")
    assert (chat.facts.question, chat.episode.answer) == ("What colour is it?", "red")
    assert [len(turn.observation.images) for turn in chat.episode.turns[:1]] == [1]
    keys = [rollout.facts.key for rollout in read_rollouts(RECORDED / "version_2/evaluation")]
    assert len(keys) == 10
    assert set(keys) == {EpisodeKey(str(item), sample) for item in range(4) for sample in range(2)}


def test_the_head_of_an_old_record_is_counted_out_of_it():
    for folder in ("rollouts", "chat", "evaluation"):
        (path,) = record_files(RECORDED / "version_2" / folder)
        reader = RecordReader(path)
        assert [head for _, head in reader.heads()] == [head_of(rollout) for rollout in reader.rollouts()]


def test_facts_of_version_2_have_their_meaning_or_are_refused():
    row = json.loads(record_files(RECORDED / "version_2/rollouts")[0].read_text().splitlines()[0])

    def facts(**changed):
        return parse_head(json.dumps(row | {"facts": changed}).encode()).facts

    assert (facts(accuracy=0.5).correct, facts(accuracy=0.5).score) == (False, 0.5)
    assert facts(session=None).sample == 0
    assert facts(not_of_ours=1) == RolloutFacts()
    for changed in ({"item_id": 7}, {"step": "3"}, {"accuracy": "high"}, {"validation": 1}):
        with pytest.raises(UnreadableRecord):
            facts(**changed)


def test_an_old_record_that_failed_without_saying_why_is_read_and_says_so():
    row = json.loads(record_files(RECORDED / "version_2/chat")[0].read_text())
    line = json.dumps(row | {"stop_reason": "failed", "answer": None}).encode()
    assert parse_head(line).failure == read_anything(line).episode.failure == "no reason was recorded"
    with pytest.raises(UnreadableRecord, match="yet there is a failure: 'x'"):
        read_anything(json.dumps(row | {"failure": "x"}).encode())


def read_anything(line):
    return parse_rollout(line, lambda sha256: ImageFile(sha256.encode()))


@pytest.mark.parametrize("version", [None, "2", True, 0, -1, 2.0])
def test_a_line_without_a_version_is_no_record(version):
    with pytest.raises(UnreadableRecord, match="its version is"):
        parse_head(json.dumps({"version": version, "facts": {}}).encode())


def test_a_newer_version_is_refused_with_file_and_line(tmp_path):
    writer = TrajectoryWriter(tmp_path)
    writer.write(Episode(opening=(), end=StopReason.ANSWERED))
    with (tmp_path / "episodes.jsonl").open("a") as file:
        file.write('{"version": 99}\n')
    with pytest.raises(NewerRecord, match=r"episodes\.jsonl:2: it has version 99, this code reads up to 3; update it"):
        list(read_rollouts(tmp_path))


# ---- damaged files ----


def a_run(directory, count=5):
    writer = TrajectoryWriter(directory)
    for number in range(count):
        opening = (Message("user", "<image>q", (IMAGE,)),)
        writer.write(Episode(opening=opening, end=StopReason.ANSWERED, answer=str(number)), RolloutFacts(item_id=str(number)))
    return directory / "episodes.jsonl"


def test_an_unreadable_line_is_said_once_with_file_and_number_and_counted(tmp_path, caplog):
    path = a_run(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][:-40] + b"\n", b"\n", lines[2], b"\xff\n", *lines[3:]]))
    reader = RecordReader(path)
    assert [head.facts.item_id for _, head in reader.heads()] == ["0", "2", "3", "4"]
    assert reader.unreadable == 2
    assert len(list(RecordReader(path).rollouts())) == 4
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [text.partition(" ")[0] for text in said] == [f"{path}:2", f"{path}:5"]
    assert all("cannot be read and is left out: no JSON" in text for text in said)


def test_damage_inside_an_episode_is_seen_without_reading_it(tmp_path):
    path = a_run(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1].replace(b'"turns"', b'"turn\x00"'), *lines[2:]]))
    reader = RecordReader(path)
    assert [head.facts.item_id for _, head in reader.heads()] == ["0", "2", "3", "4"]
    assert reader.unreadable == 1


def test_a_last_line_that_was_cut_off_is_skipped_and_neither_said_nor_counted(tmp_path, caplog):
    path = a_run(tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    reader = RecordReader(path)
    assert len(list(reader.heads())) == len(list(reader.rollouts())) == 4
    assert (reader.unreadable, caplog.records) == (0, [])


def test_a_file_of_rubbish_is_not_said_line_by_line(tmp_path, caplog):
    path = tmp_path / "episodes.jsonl"
    path.write_bytes(b"rubbish\n" * 1000)
    reader = RecordReader(path)
    assert list(reader.heads()) == []
    assert reader.unreadable == 1000
    assert len(caplog.records) == 20


def test_a_record_that_could_not_be_read_again_is_not_written(tmp_path):
    with pytest.raises(UnreadableRecord, match="item_id"):
        TrajectoryWriter(tmp_path).write(Episode(opening=()), RolloutFacts(item_id=7))
    assert not (tmp_path / "episodes.jsonl").exists()


# ---- reading no more than was asked for ----


def test_images_are_read_when_they_are_asked_for(tmp_path):
    a_run(tmp_path)
    found = list(read_rollouts(tmp_path))
    image = found[0].episode.opening[0].images[0]
    assert (image.sha256, image) == (IMAGE.sha256, IMAGE)
    assert {image, IMAGE} == {IMAGE}
    shutil.rmtree(tmp_path / "images")
    lost = next(read_rollouts(tmp_path)).episode.opening[0].images[0]
    assert lost.sha256 == IMAGE.sha256
    with pytest.raises(FileNotFoundError, match=f"no image {IMAGE.sha256}"):
        lost.pil()


def test_heads_of_a_long_recording_are_read_without_holding_it():
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "episodes.jsonl"
        turn = Turn(reply=Reply(text="x" * 50_000, finish="stop"), action=FinalAnswer("a"))
        line = to_line(Rollout(Episode(opening=(), turns=[turn], end=StopReason.ANSWERED, answer="a")))
        path.write_bytes(line * 400)
        tracemalloc.start()
        assert sum(1 for _ in RecordReader(path).heads()) == 400
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < 2_000_000 < 400 * len(line)


# ---- a recording of this version, for those that come ----


@pytest.mark.parametrize(("folder", "count"), [("rollouts", 10), ("chat", 1), ("evaluation", 10)])
def test_lines_of_version_3_are_read_and_written_byte_for_byte(folder, count):
    (path,) = record_files(RECORDED / "version_3" / folder)
    lines = path.read_bytes().splitlines(keepends=True)
    found = list(RecordReader(path).rollouts())
    assert len(found) == len(lines) == count
    assert [to_line(rollout) for rollout in found] == lines
    assert [head for _, head in RecordReader(path).heads()] == [head_of(rollout) for rollout in found]


def test_what_version_2_and_3_recorded_of_the_same_rollouts_is_the_same():
    def facts(version):
        return [rollout.facts for rollout in read_rollouts(RECORDED / version / "rollouts")]

    assert facts("version_2") == facts("version_3")
