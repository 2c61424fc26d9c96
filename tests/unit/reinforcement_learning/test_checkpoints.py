import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from reinforcement_learning.checkpoints import MARKER, BrokenCheckpoint, Checkpoints
from tests.conftest import ROOT


def save(checkpoints, step, *, ranks=2, metrics=None):
    checkpoints.begin()
    actor = checkpoints.saving / f"global_step_{step}/actor"
    (actor / "huggingface").mkdir(parents=True)
    (actor / "fsdp_config.json").write_text(json.dumps({"world_size": 2}))
    (actor / "huggingface/config.json").write_text("{}")
    for kind in ("model", "optim", "extra_state"):
        for rank in range(ranks):
            (actor / f"{kind}_world_size_2_rank_{rank}.pt").write_bytes(bytes(1000 + step))
    (checkpoints.saving / "latest_checkpointed_iteration.txt").write_text(str(step))
    return checkpoints.finish(step, metrics or {})


def steps(checkpoints):
    return [checkpoint.step for checkpoint in checkpoints.complete()]


def test_the_newest_complete_ones_stay_and_one_is_there_all_the_time(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (2, 4, 6, 12):
        save(checkpoints, step, metrics={"step": step})
        assert checkpoints.newest().step == step
    assert steps(checkpoints) == [6, 12]
    assert checkpoints.newest().metrics == {"step": 12}
    assert checkpoints.newest().world_size == 2
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["global_step_12", "global_step_6"]


def test_all_stay_if_no_number_is_set(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (2, 4, 6):
        save(checkpoints, step)
    assert steps(checkpoints) == [2, 4, 6]


@pytest.mark.parametrize("harm", ["no list", "cut list", "missing file", "cut file", "empty folder"])
def test_a_folder_that_is_not_whole_is_not_resumed_from_and_moved_out_of_the_way(tmp_path, harm):
    checkpoints = Checkpoints(tmp_path, keep=2)
    save(checkpoints, 2)
    path = save(checkpoints, 4)
    shard = path / "actor/model_world_size_2_rank_1.pt"
    if harm == "no list":
        (path / MARKER).unlink()
    elif harm == "cut list":
        (path / MARKER).write_bytes((path / MARKER).read_bytes()[:50])
    elif harm == "missing file":
        shard.unlink()
    elif harm == "cut file":
        os.truncate(shard, 10)
    else:
        (tmp_path / "global_step_6").mkdir()
    # verl's tracker names a step that is not there.
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("8")
    newest = 4 if harm == "empty folder" else 2
    assert checkpoints.newest().step == newest
    told = checkpoints.tidy(newest)
    assert len(told) == 1
    assert "moved to" in told[0]
    assert len(list(tmp_path.glob("global_step_*"))) == len(steps(checkpoints))
    assert checkpoints.newest().step == newest


def test_what_a_kill_left_of_a_save_or_of_a_deletion_is_removed_at_the_next_start(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 2)
    checkpoints.begin()
    (checkpoints.saving / "global_step_4/actor").mkdir(parents=True)
    (tmp_path / ".removing/global_step_1").mkdir(parents=True)
    assert checkpoints.tidy(2) == []
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["global_step_2"]


def test_later_steps_than_the_one_a_run_goes_on_from_do_not_win_at_its_next_start(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (2, 4):
        save(checkpoints, step)
    assert len(checkpoints.tidy(2)) == 1
    assert checkpoints.newest().step == 2
    assert len(checkpoints.tidy(None)) == 1
    assert checkpoints.newest() is None


def test_a_save_that_lacks_the_files_of_a_rank_never_becomes_a_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, wait_s=0.0)
    with pytest.raises(BrokenCheckpoint, match="1 of 2 files model_world_size_2.*all nodes see"):
        save(checkpoints, 2, ranks=1)
    assert checkpoints.newest() is None


def test_the_same_step_may_be_saved_again(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for _ in range(2):
        save(checkpoints, 2)
    assert steps(checkpoints) == [2]


def test_older_ones_that_kills_have_kept_from_going_go_before_the_next_save(tmp_path):
    for step in range(1, 6):
        save(Checkpoints(tmp_path), step)
    Checkpoints(tmp_path, keep=2).begin()
    assert steps(Checkpoints(tmp_path)) == [4, 5]


SAVER = """
import sys, pathlib
from reinforcement_learning.checkpoints import Checkpoints
from tests.unit.reinforcement_learning.test_checkpoints import save
checkpoints = Checkpoints(pathlib.Path(sys.argv[1]), keep=2)
newest = checkpoints.newest()
checkpoints.tidy(newest.step if newest else None)
step = newest.step if newest else 0
print("READY", flush=True)
while True:
    step += 1
    save(checkpoints, step)
    print(step, flush=True)
"""


def test_a_process_killed_at_random_moments_of_saving_always_leaves_its_newest_complete_checkpoint(tmp_path):
    draw = random.Random(7)
    finished = 0
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert process.stdout.readline() == "READY\n"
        if draw.random() < 0.5:
            # However slow the machine: some kills come after whole saves.
            finished = int(process.stdout.readline())
        time.sleep(draw.random() * 0.1)
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
        reported = [int(line) for line in said.splitlines()]
        finished = max([finished, *reported])
        found = steps(Checkpoints(tmp_path))
        # Whoever was told that a step is saved can go on from it, or from the next one.
        assert not finished or found[-1] in (finished, finished + 1), (found, finished)
        assert len(found) <= 3
        finished = max([finished, *found])
    assert finished > 5
