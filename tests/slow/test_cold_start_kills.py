"""LLaMA-Factory's real trainer, saving at every step, is killed at random moments; each start resumes from what ours calls whole."""

import subprocess
import sys

import pytest

from cold_start.checkpoints import checkpoints
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

KILLS = 20
# Forked from a process that has imported LLaMA-Factory: a start then takes a second and not half a minute.
SCRIPT = """
import os, random, signal, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from cold_start.checkpoints import latest_checkpoint, set_aside_incomplete, checkpoints
from cold_start.llama_factory import CATALOGUE
from cold_start.recipe import load_recipe
from cold_start.train import resolve
import json, shutil
run, kills = Path(sys.argv[1]), int(sys.argv[2])
os.environ["CUDA_VISIBLE_DEVICES"] = ""
from llamafactory.train.tuner import run_exp
rng = random.Random(0)
output = run / "sft"
rows = json.loads((run / "data/sft.json").read_text())
for row in rows:
    row["images"] = [str(run / "data" / image) for image in row["images"]]
(output / "data").mkdir(parents=True)
(output / "data/deepeyes.json").write_text(json.dumps(rows))
(output / "data/dataset_info.json").write_text(json.dumps(CATALOGUE))
overrides = ("save_steps=1", "max_steps=4000", "logging_steps=1000", "preprocessing_num_workers=null", "dataloader_num_workers=0", "max_samples=16",
             "plot_loss=false", "per_device_train_batch_size=2")
recipe = load_recipe("tiny_cpu", (*overrides, f"model_name_or_path={run}/models/base", f"output_dir={output}"))
last, torn = 0, 0
for kill in range(kills):
    settings = resolve(recipe, output)
    chosen = settings.get("resume_from_checkpoint")
    torn += len(set_aside_incomplete(output, newer_than=Path(chosen) if chosen else None))
    step = int(chosen.rpartition("-")[2]) if chosen else 0
    assert step >= last, (kill, step, last)
    child = os.fork()
    if not child:
        os.dup2(os.open(run / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(1, 2)
        run_exp(settings)
        os._exit(0)
    deadline = time.monotonic() + 120
    # A checkpoint beyond the one resumed from: the weights were loaded, and training went on.
    while not any(number > step + 1 for number, _ in checkpoints(output)):
        assert os.waitpid(child, os.WNOHANG) == (0, 0), f"start {kill} from {chosen} ended by itself"
        assert time.monotonic() < deadline, f"start {kill} from {chosen} makes no step"
        time.sleep(0.002)
    time.sleep(rng.random() * 0.5)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    last = step + 1
    shutil.rmtree(output / "incomplete", ignore_errors=True)
print("KILLED", kills, "torn", torn, "step", int(latest_checkpoint(output).name.rpartition("-")[2]))
"""


def test_a_cold_start_that_is_killed_at_any_moment_of_a_save_goes_on_from_a_whole_checkpoint(toy, tmp_path):
    for name in ("data", "models"):
        (tmp_path / name).symlink_to(toy / name)
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(KILLS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    log = tmp_path / "log"
    assert result.returncode == 0, result.stderr[-2000:] + (log.read_text()[-3000:] if log.exists() else "")
    assert f"KILLED {KILLS}" in result.stdout
    assert len(checkpoints(tmp_path / "sft")) <= 3
