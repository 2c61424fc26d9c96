import hashlib
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict

import psutil
import pytest

from agent.trajectory import read_rollouts
from deepeyes.quickstart.outcome import SUCCESS_ACCURACY
from reinforcement_learning.checkpoints import Checkpoints
from reinforcement_learning.verl_adapter.image_store import KEPT_STEPS
from serving.processes import MARK
from tests.conftest import ROOT
from tests.documented_metrics import problems
from tests.slow.conftest import quickstart_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2700)]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def summary(quickstart, name):
    return json.loads((quickstart.directory / "eval" / name / "summary.json").read_text())


def test_the_quickstart_succeeds_and_says_what_came_out(quickstart):
    assert quickstart.code == 0, quickstart.output[-6000:]
    for stage in ("data", "sft", "rl", "eval", "report"):
        assert (quickstart.directory / "stages" / f"{stage}.json").exists()
    assert re.search(r"rl\s+accuracy \d+\.\d%", quickstart.output)


def test_rl_teaches_the_model_when_to_use_its_tool_and_when_not(quickstart):
    base, sft, rl = (summary(quickstart, name) for name in ("base", "sft", "rl"))
    assert base["accuracy"] < 0.1
    assert rl["accuracy"] >= SUCCESS_ACCURACY
    assert sft["categories"]["direct"]["tool_rate"] > 0.5 > rl["categories"]["direct"]["tool_rate"]
    assert rl["categories"]["crop"]["tool_rate"] > 0.9
    assert base["not_evaluated"] == sft["not_evaluated"] == rl["not_evaluated"] == 0


def test_an_llm_judge_behind_vllm_is_asked_about_every_answer_and_decides_nothing(quickstart):
    facts = [record.facts for record in read_rollouts(quickstart.directory / "rl/rollouts")]
    asked = [row for row in facts if row.second_opinion]
    assert len(asked) > 0.9 * len(facts)
    assert all(row.second_opinion in ("correct", "incorrect") for row in asked)
    assert all(row.decided_by.startswith("rule:") for row in facts)
    assert "An LLM judge behind vLLM was asked about" in (quickstart.directory / "report.html").read_text()


def test_rollout_and_training_agree_on_trained_weights(quickstart):
    metrics = rows(quickstart.directory / "rl/metrics.jsonl")
    assert len(metrics) >= 10
    for row in metrics:
        assert row["training/rollout_actor_probs_pearson_corr"] >= 0.9999, row["step"]
        assert row["training/rollout_probs_diff_max"] < 1e-2
    assert metrics[-1]["episode/failed_frac"] == 0.0


def test_what_is_written_is_what_the_page_of_metrics_explains(quickstart):
    written = {name for row in rows(quickstart.directory / "rl/metrics.jsonl") for name in row}
    assert problems(written) == []


def test_training_was_validated_on_boards_of_its_own(quickstart):
    name = "val-core/families/acc/mean@1"
    found = {row["step"]: row[name] for row in rows(quickstart.directory / "rl/metrics.jsonl") if name in row}
    assert list(found) == [9, 18]
    assert found[18] > 0.6
    played = [record.facts for record in read_rollouts(quickstart.directory / "rl/rollouts") if record.facts.validation]
    assert len(played) == 2 * 16
    assert all(facts.item_id.startswith("mark_val_") for facts in played)


def test_a_checkpoint_is_model_and_optimiser_and_the_exported_model_is_the_newest(quickstart):
    found = Checkpoints(quickstart.directory / "rl/checkpoints").complete()
    assert [checkpoint.step for checkpoint in found] == [16, 18]
    for checkpoint in found:
        assert not (checkpoint.path / "transfer_queue").exists()
        whole = sum(path.stat().st_size for path in checkpoint.path.rglob("*") if path.is_file())
        assert whole < 1.1 * sum(path.stat().st_size for path in checkpoint.path.glob("actor/[mo]*.pt"))
    assert "of step 18" in (quickstart.directory / "logs/export.log").read_text()


def test_images_lie_once_and_those_of_old_steps_are_gone(quickstart):
    store = quickstart.directory / "rl/images"
    kept = [path for folder in store.glob("[0-9a-f][0-9a-f]") for path in folder.iterdir()]
    assert kept
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in kept)
    steps = sorted(int(folder.name) for folder in (store / "steps").iterdir())
    assert steps
    assert steps[0] >= 18 - KEPT_STEPS, "18 steps, and the newest few are kept"
    for row in rows(quickstart.directory / "rl/metrics.jsonl"):
        assert row["routing/replicas_per_group/max"] == 1.0


def test_every_recorded_rollout_has_the_advantage_that_its_group_gives_it(quickstart):
    advantages = {
        episode: value
        for row in rows(quickstart.directory / "rl/advantages.jsonl")
        for episode, value in row["advantages"].items()
    }
    groups = defaultdict(list)
    for record in read_rollouts(quickstart.directory / "rl/rollouts"):
        if not record.facts.validation:
            groups[record.facts.group].append((record.facts.reward, advantages[record.episode.episode_id]))
    for group in groups.values():
        rewards = [reward for reward, _ in group]
        for reward, advantage in group:
            expected = reward - statistics.mean(rewards)  # the recipe does not divide by the deviation
            assert advantage == pytest.approx(expected, abs=1e-4)


def test_every_recorded_rollout_holds_the_tokens_behind_its_text(quickstart):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(quickstart.directory / "models/rl")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    checked = 0
    for record in read_rollouts(quickstart.directory / "rl/rollouts"):
        assert record.facts.step >= 0
        assert 0 <= record.facts.reward <= 1
        for turn in record.episode.turns:
            ids = list(turn.reply.token_ids)
            assert len(ids) == len(turn.reply.logprobs)
            assert max(turn.reply.logprobs) <= 0
            ids = ids[:-1] if ids[-1] == end else ids
            assert tokenizer.decode(ids, skip_special_tokens=False) == turn.reply.text
            checked += 1
    assert checked > 1000


def test_the_report_is_one_file_with_curves_table_and_episodes(quickstart):
    page = (quickstart.directory / "report.html").read_text()
    assert not re.search(r'src="(?!data:)|href="(?!eval/)', page)
    assert page.count("<svg") == 4
    assert page.count("<article>") in (4, 6, 8)  # a question of each outcome that there was, before and after
    assert "display(image_1.crop((" in page
    assert "decided by rules alone" in page
    assert "This run passed" in page


def test_a_finished_run_is_not_run_again(quickstart):
    started = time.monotonic()
    result = subprocess.run(
        quickstart_command(quickstart.directory), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0
    assert result.stdout.count("finished before") == 4
    assert time.monotonic() - started < 30


def test_sft_tokens_equal_the_chat_template(quickstart):
    """LLaMA-Factory's ids against the template that rollouts use."""
    code = """
import json, sys, yaml
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
from llamafactory.data import get_template_and_fix_tokenizer, get_dataset
from PIL import Image
run = sys.argv[1]
settings = yaml.safe_load(open(f"{run}/models/sft/recipe.resolved.yaml"))
settings.update(max_samples=40, preprocessing_num_workers=1, output_dir=f"{run}/check", resume_from_checkpoint=None)
model, data, training, _, _ = get_train_args(settings)
module = load_tokenizer(model)
template = get_template_and_fix_tokenizer(module["tokenizer"], data)
examples = get_dataset(template, model, data, training, stage="sft", **module)["train_dataset"]
rows = json.load(open(f"{run}/models/sft/data/deepeyes.json"))[:40]
with_tool = 0
for example, row in zip(examples, rows):
    parts = lambda text: [p for i, t in enumerate(text.split("<image>")) for p in ([{"type": "image"}] if i else []) + ([{"type": "text", "text": t}] if t else [])]
    conversation = [{"role": m["role"], "content": parts(m["content"])} for m in row["messages"]]
    text = module["processor"].apply_chat_template(conversation, tokenize=False)
    images = [Image.open(path).convert("RGB") for path in row["images"]]
    assert list(module["processor"](text=[text], images=images)["input_ids"][0]) == list(example["input_ids"])
    with_tool += len(images) > 1
assert with_tool > 5
print("SAME")
"""
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(quickstart.directory)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )
    assert "SAME" in result.stdout, result.stderr[-3000:]


def copy_of(quickstart, tmp_path):
    target = tmp_path / "run"
    shutil.copytree(quickstart.directory, target, ignore=shutil.ignore_patterns("eval", "report.html", "check"))
    return target


def test_sft_that_is_killed_resumes_with_the_losses_it_would_have_had(quickstart, tmp_path):
    run = tmp_path / "run"
    for name in ("data", "models/base"):
        shutil.copytree(quickstart.directory / name, run / name)
    command = [
        "bash",
        "cold_start/run_cold_start.sh",
        "tiny_cpu",
        "max_steps=30",
        "save_steps=10",
        "logging_steps=5",
        "warmup_ratio=0.0",
        "lr_scheduler_type=constant",
    ]
    env = os.environ | {"QUICKSTART_RUN": str(run), "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
    whole = subprocess.run(
        [*command, f"output_dir={run}/whole"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert whole.returncode == 0, whole.stdout[-3000:]
    shutil.copytree(
        run / "whole",
        run / "killed",
        ignore=shutil.ignore_patterns("checkpoint-*", "model.safetensors", "trainer_log.jsonl"),
    )
    first = subprocess.run(
        [*command, f"output_dir={run}/killed", "save_total_limit=3"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert first.returncode == 0
    shutil.rmtree(run / "killed/checkpoint-30")
    shutil.rmtree(run / "killed/checkpoint-20")
    again = subprocess.run(
        [*command, f"output_dir={run}/killed"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert "resuming from" in again.stdout
    losses = {row["current_steps"]: row["loss"] for row in rows(run / "whole/trainer_log.jsonl") if "loss" in row}
    resumed = {row["current_steps"]: row["loss"] for row in rows(run / "killed/trainer_log.jsonl") if "loss" in row}
    for step in (15, 20, 25, 30):
        assert resumed[step] == pytest.approx(losses[step], rel=0.02), (step, losses, resumed)


def test_rl_that_is_interrupted_leaves_nothing_running_and_resumes_without_repeating_a_step(quickstart, tmp_path):
    run = copy_of(quickstart, tmp_path)
    (run / "stages/rl.json").unlink()
    # As if it had been killed after its last checkpoint but one.
    shutil.rmtree(run / f"rl/checkpoints/global_step_{Checkpoints(run / 'rl/checkpoints').newest().step}")
    before = rows(run / "rl/metrics.jsonl")
    steps = int(before[-1]["step"])
    env = os.environ | {"COLUMNS": "200"}
    process = subprocess.Popen(
        quickstart_command(run, "--stage", "rl"), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for _ in range(600):
        # Ray's workers are up, so everything that has to go is there: Redis, the sandbox and its kernels, Ray, verl.
        if any("ray::" in " ".join(command_line(p)) for p in psutil.process_iter()):
            break
        time.sleep(0.1)
    assert process.poll() is None
    marks = {mark for p in psutil.process_iter() if (mark := environ(p).get(MARK))}
    assert marks
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "nothing is left running" in output
    left = [p.name() for p in psutil.process_iter() if environ(p).get(MARK) in marks and p.pid != os.getpid()]
    assert left == []
    # One step more than before: the run goes on from its last checkpoint.
    recipe = ROOT / "reinforcement_learning/recipes/tiny_cpu.yaml"
    assert f"total_training_steps: {steps}" in recipe.read_text()
    result = subprocess.run(
        [sys.executable, "-c", RESUME, str(run), str(steps + 1)],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    after = rows(run / "rl/metrics.jsonl")
    assert [row["step"] for row in after] == [row["step"] for row in before] + [steps + 1]
    assert after[-1]["episode/acc/mean"] > 0.8
    assert after[-1]["training/rollout_actor_probs_pearson_corr"] >= 0.9999


RESUME = """
import os, sys
from pathlib import Path
from serving import processes
run, steps = Path(sys.argv[1]), sys.argv[2]
with processes.marked(), processes.redis_server(run / "logs") as redis, processes.sandbox_server(run / "logs", redis) as url:
    processes.run(
        [sys.executable, "-m", "reinforcement_learning.train", "--recipe", "tiny_cpu", f"verl.trainer.total_training_steps={steps}"],
        log=run / "logs/resume.log",
        env={"QUICKSTART_RUN": str(run), "CODE_SANDBOX_URL": url, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"},
        timeout_s=800,
    )
"""


def command_line(process):
    try:
        return process.cmdline()
    except (psutil.Error, OSError):
        return []


def environ(process):
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}
