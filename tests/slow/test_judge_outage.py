"""A judge is killed in the middle of a real verl + vLLM run: training waits, says so, goes on, and scores nothing for it."""

import json
import sys
import time

import pytest

from agent.trajectory import read_rollouts
from serving.processes import free_port, marked, redis_server, sandbox_server, start
from tests.slow.conftest import killable_judge

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]
STEPS = 3


def wait_for(condition, process, log, timeout_s):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return
        assert process.poll() is None, log.read_text(errors="replace")[-4000:]
        time.sleep(0.1)
    raise AssertionError(f"not within {timeout_s} s:\n{log.read_text(errors='replace')[-4000:]}")


def rows_for_a_judge(source, path):
    """The toy's rows with golds in words that no rule compares with a colour."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    rows = table.to_pylist()
    for row in rows:
        row["reward_model"]["ground_truth"] = f"the shade called {row['reward_model']['ground_truth']}"
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)


def test_training_waits_for_a_judge_that_is_killed_goes_on_when_it_is_back_and_loses_nothing(quickstart, tmp_path):
    run, log, port = tmp_path / "rl", tmp_path / "rl.log", free_port()
    metrics, data = run / "metrics.jsonl", tmp_path / "rows.parquet"
    rows_for_a_judge(quickstart.directory / "data/rl_train.parquet", data)

    def steps():
        return len(metrics.read_text().splitlines()) if metrics.exists() else 0

    def said(text):
        return text in log.read_text(errors="replace")

    command = [
        sys.executable, "-m", "reinforcement_learning.train", "--recipe", "tiny_cpu", f"run.directory={run}",
        f"verl.trainer.total_training_steps={STEPS}", "verl.trainer.save_freq=-1", f"run.train_files=['{data}']",
        "agent.judge={strict_rules: false, patience_s: 1, timeout_s: 5}",
        "agent.judge_outage={max_share: 0.0, poll_s: 0.5}",
    ]  # fmt: skip
    with (
        marked(),
        redis_server(tmp_path) as redis_url,
        sandbox_server(tmp_path, redis_url, arguments=("--max-sessions", "128", "--require-level", "0")) as url,
    ):
        env = {
            "QUICKSTART_RUN": str(quickstart.directory),
            "CODE_SANDBOX_URL": url,
            "LLM_AS_A_JUDGE_BASE": f"http://127.0.0.1:{port}/v1",
            "OMP_NUM_THREADS": "1",
            "WANDB_MODE": "disabled",
        }
        with killable_judge(port, tmp_path / "judge.log"):
            time.sleep(2)
            process = start(command, log=log, env=env)
            wait_for(lambda: steps() >= 1, process, log, 400)
        # The judge is gone now, with requests of the next step on their way to it.
        wait_for(lambda: said("training waits for the judge"), process, log, 120)
        before = steps()
        time.sleep(8)
        assert steps() == before < STEPS
        with killable_judge(port, tmp_path / "judge.log"):
            wait_for(lambda: said("the judge is back after"), process, log, 60)
            assert process.wait(300) == 0, log.read_text(errors="replace")[-4000:]
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [row["episode/failed_frac"] for row in rows] == [0.0] * STEPS
    records = list(read_rollouts(run / "rollouts"))
    assert len(records) == STEPS * 64
    judged = [record for record in records if record.facts.decided_by == "judge:judge"]
    assert judged
    assert all(record.facts.score == 0.0 for record in judged)
    assert not any(record.facts.decided_by == "nobody" for record in records)
