"""Real runs of verl with the tiny model in which rollouts are lost: what is trained on, what is saved, how it ends."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from agent.trajectory import read_rollouts
from reinforcement_learning.checkpoints import Checkpoints
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PLUGINS = "reinforcement_learning.verl_adapter.plugin,tests.failing_rewards"
TRAIN = "import sys, tests.failing_rewards; from reinforcement_learning.train import main; main(sys.argv[1:])"


def rows_of(toy, path, data_source):
    """The toy's rows with the reward of another data source."""
    import pyarrow.parquet as pq

    table = pq.read_table(toy / "data/rl_train.parquet")
    place = table.column_names.index("data_source")
    pq.write_table(table.set_column(place, "data_source", [[data_source] * table.num_rows]), path)


def train(toy, run, data, sandbox_url, *overrides):
    command = [
        sys.executable, "-W", "ignore", "-c", TRAIN, "--recipe", "tiny_cpu",
        f"run.model={toy / 'models/base'}", f"run.train_files=[{data}]", f"run.directory={run}",
        f"run.env.VERL_USE_EXTERNAL_MODULES={PLUGINS}", f"run.env.FAILS_ONCE={run}.failed", "verl.trainer.save_freq=1",
        *overrides,
    ]  # fmt: skip
    environment = {
        "PYTHONPATH": str(ROOT),
        "CODE_SANDBOX_URL": sandbox_url,
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "disabled",
    }
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False
    )


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def one_lost(toy, sandbox_url, tmp_path_factory):
    run = tmp_path_factory.mktemp("one_lost") / "run"
    rows_of(toy, run.with_suffix(".parquet"), "fails_once")
    result = train(toy, run, run.with_suffix(".parquet"), sandbox_url, "verl.trainer.total_training_steps=3")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return run


def test_the_survivors_of_a_group_are_trained_on_and_the_loss_is_counted(one_lost):
    first, *others = metrics(one_lost)
    assert first["episode/count"] == 63
    assert first["episode/failed_frac"] == 1 / 64
    assert first["episode/lost"] == 1
    assert first["episode/dropped_groups"] == first["episode/refilled_groups"] == 0
    assert len([name for name in first if re.fullmatch(r"episode/lost_\w+_frac", name)]) == 1
    for row in others:
        assert row["episode/count"] == 64
        assert row["episode/failed_frac"] == 0


def test_a_checkpoint_holds_model_and_optimiser_and_no_rollouts(one_lost):
    found = Checkpoints(one_lost / "checkpoints").complete()
    assert [checkpoint.step for checkpoint in found] == [2, 3]
    for checkpoint in found:
        assert not (checkpoint.path / "transfer_queue").exists()
        whole = sum(path.stat().st_size for path in checkpoint.path.rglob("*") if path.is_file())
        states = sum(path.stat().st_size for path in checkpoint.path.glob("actor/[mo]*.pt"))
        assert whole < 1.1 * states


def test_a_resume_says_so_makes_later_steps_again_once_and_its_checkpoints_do_not_grow(one_lost, toy, sandbox_url):
    def size(checkpoint):
        return sum(path.stat().st_size for path in checkpoint.path.rglob("*") if path.is_file())

    before, lost = Checkpoints(one_lost / "checkpoints").complete()
    size_before = size(before)
    # As if the third step had been made, but killed in its save; and the second between its save and its metrics.
    (lost.path / "complete.json").unlink()
    first, _, third = (one_lost / "metrics.jsonl").read_text().splitlines(keepends=True)
    (one_lost / "metrics.jsonl").write_text(first + third)
    result = train(toy, one_lost, one_lost.with_suffix(".parquet"), sandbox_url, "verl.trainer.total_training_steps=4")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert "rl: resumes after step 2" in result.stdout
    assert [row["step"] for row in metrics(one_lost)] == [1, 2, 3, 4]
    assert Counter(record.facts.step for record in read_rollouts(one_lost / "rollouts")) == dict.fromkeys(range(1, 5), 64)
    after = Checkpoints(one_lost / "checkpoints").newest()
    assert after.step == 4
    assert size(after) == pytest.approx(size_before, rel=0.01)


def test_a_fault_in_every_episode_ends_the_run_with_one_clear_error_in_bounded_time(toy, sandbox_url, tmp_path):
    run, data = tmp_path / "run", tmp_path / "data.parquet"
    rows_of(toy, data, "fails_always")
    result = train(toy, run, data, sandbox_url, "agent.failed_groups.max_in_a_row=12")
    assert result.returncode == 1, result.stdout[-4000:] + result.stderr[-4000:]
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("python -m reinforcement_learning.train: 12 groups in a row had fewer than 2 of 8 rollouts left")
    assert "nothing can be scored today" in last or "told no reason" in last
