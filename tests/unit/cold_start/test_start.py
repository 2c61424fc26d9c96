"""What is said and done between the command line and LLaMA-Factory."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import yaml

from agent.recipes import RecipeError
from cold_start import machine, train
from cold_start.checks import trained_on
from cold_start.launch import Launch, batch_hint, launch_environment, plan_launch
from cold_start.machine import ModelSize, checkpoint_bytes, num_steps
from cold_start.recipe import RECIPES, load_recipe
from cold_start.run_state import RunFacts, record
from tests.conftest import ROOT
from tests.unit.cold_start.test_checkpoints import write_checkpoint

# Importing LLaMA-Factory takes half a minute.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def run(toy, tmp_path, monkeypatch):
    """A quickstart's folder with data and model; what would be started is noted and not started."""
    for name in ("data", "models"):
        shutil.copytree(toy / name, tmp_path / "run" / name)
    monkeypatch.setenv("QUICKSTART_RUN", str(tmp_path / "run"))
    for name in ("FORCE_TORCHRUN", "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "NPROC_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "run"


@pytest.fixture
def started(monkeypatch):
    calls = []
    monkeypatch.setattr(os, "execve", lambda path, command, env: calls.append((command, env)))
    return calls


def launched(call):
    """The settings that LLaMA-Factory was given."""
    command, _ = call
    return yaml.safe_load(Path(command[2]).read_text())


def snapshot(directory):
    return {path: path.stat().st_mtime_ns for path in sorted(directory.rglob("*"))}


def dry_run(capsys, *words):
    """(what was printed, exit message or None)"""
    try:
        train.main(["--dry-run", *words])
    except SystemExit as stop:
        return capsys.readouterr().out, str(stop)
    return capsys.readouterr().out, None


@pytest.mark.parametrize(
    "words",
    [
        ["tiny_cpu", "learning_rate=1e-5", "--dry-run"],
        ["--dry-run", "tiny_cpu", "learning_rate=1e-5"],
        ["learning_rate=1e-5", "--dry-run", "tiny_cpu"],
        ["tiny_cpu", "--dry-run", "learning_rate=1e-5", "--show-recipe"],
    ],
)
def test_settings_and_flags_stand_in_any_order_and_the_verdict_comes_last(run, capsys, words):
    before = snapshot(run)
    train.main(words)
    output = capsys.readouterr().out
    assert output.splitlines()[-1] == "cold start: ready; nothing was started"
    assert ("learning_rate: 1.0e-05" in output) == ("--show-recipe" in words)
    assert snapshot(run) == before
    assert "96 conversations, none left out" in output


def test_the_published_recipe_is_taken_when_none_is_named():
    assert train._parse(["learning_rate=1e-5"]).recipe == "qwen2_5_vl_7b"
    with pytest.raises(SystemExit):
        train._parse(["tiny_cpu", "other"])


@pytest.fixture
def deaf_hub():
    """A hub that hangs up on everyone, and counts how often it was called."""
    calls = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    calls.append(1)
                    connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", calls
        server.shutdown(socket.SHUT_RDWR)


def test_the_documented_command_works_and_lists_every_failure_without_trying_the_hub_again_and_again(tmp_path, deaf_hub):
    hub, calls = deaf_hub
    result = subprocess.run(
        ["bash", "cold_start/run_cold_start.sh", "qwen2_5_vl_7b", "learning_rate=1e-5", f"output_dir={tmp_path}/o", "fsdpp=1"],
        cwd=ROOT,
        env=os.environ | {"DRY_RUN": "1", "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub, "PYTHONPATH": str(ROOT),
                          "HF_HOME": str(tmp_path / "hf"), "DEEPEYES_SFT_DATA": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "unrecognized arguments" not in result.stderr
    assert "LLaMA-Factory has no setting 'fsdpp'; did you mean fsdp" in result.stdout
    assert "Qwen/Qwen2.5-VL-7B-Instruct is no folder nor in the hub's cache, and the hub does not answer" in result.stdout
    assert "no data file matches" in result.stdout
    assert "no GPU that torch can see" in result.stdout
    assert result.stdout.count("FAIL") >= 4
    assert result.stderr.splitlines()[-1].startswith("cold start: not ready,")
    assert not (tmp_path / "o").exists()
    assert len(calls) <= 1


def test_a_missing_model_stops_before_anything_starts(tmp_path):
    recipe = yaml.safe_load((RECIPES / "tiny_cpu.yaml").read_text())
    recipe["llamafactory"] |= {"model_name_or_path": str(tmp_path / "none"), "output_dir": str(tmp_path / "o")}
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(recipe))
    (tmp_path / "none").mkdir()
    with pytest.raises(SystemExit, match=r"there is no .*none/config\.json"):
        train.main([str(path)])
    assert not (tmp_path / "o").exists()


def spoil(run, what):
    model, data = run / "models/base", run / "data/sft.json"
    if what == "family":
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"model_type": "llava"}))
    elif what == "weights":
        (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-9])
    elif what == "config":
        (model / "config.json").write_text("{")
    elif what == "data":
        rows = json.loads(data.read_text())
        data.write_text(json.dumps([*rows, {"messages": 1}]))


@pytest.mark.parametrize(
    ("what", "override", "message"),
    [
        ("family", "seed=1", "'llava' is no model_type that is known. Families supported: Qwen2-VL and Qwen2.5-VL (qwen2_vl, qwen2_5_vl)"),
        ("weights", "seed=1", "lacks the end of model.safetensors"),
        ("config", "seed=1", "is no model's configuration"),
        ("data", "seed=1", r"1 conversations cannot be trained on, the first: sft.json[96]: it has no `messages`"),
        ("", "template=llava", "template is 'llava'; conversations are written and checked for qwen2_vl ("),
        ("", "template=qwen3_vl_nothink", "the template qwen3_vl_nothink is for Qwen3-VL Instruct. Set template=qwen2_vl"),
        ("", "learnig_rate=1", "LLaMA-Factory has no setting 'learnig_rate'; did you mean learning_rate"),
        ("", "learning_rate=abc", "learning_rate is 'abc'; LLaMA-Factory expects float"),
        ("", "bf16=perhaps", "bf16 is 'perhaps'"),
        ("", "neat_packing=[1", "has no YAML value"),
        ("", "quantization_bit=4", "LLaMA-Factory refuses the settings: ValueError: Quantization"),
        ("", "deepspeed=none.json", "deepspeed: none.json cannot be read as JSON"),
        ("", "flash_attn=fa2", "flash-attn is not installed"),
        ("", "use_cpu=false", "this machine has no GPU"),
        ("", "report_to=wandb", "nobody is logged in: `wandb login`"),
        ("", "output_dir={run}/data/sft.json/x", "is not a folder that one may write to"),
    ],
)
def test_what_would_end_the_run_later_is_said_before(run, capsys, monkeypatch, what, override, message):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", "/none")
    spoil(run, what)
    before = snapshot(run)
    output, stop = dry_run(capsys, "tiny_cpu", override.replace("{run}", str(run)))
    assert stop is not None
    assert message in output + stop
    assert snapshot(run) == before


def test_a_list_of_what_is_left_out_is_where_the_dry_run_says(run, capsys):
    rows = json.loads((run / "data/sft.json").read_text())
    rows[5]["messages"][-1]["content"] = "no action"
    (run / "data/sft.json").write_text(json.dumps(rows))
    recipe = yaml.safe_load((RECIPES / "tiny_cpu.yaml").read_text())
    recipe["cold_start"]["on_bad"] = "drop"
    (run / "r.yaml").write_text(yaml.safe_dump(recipe))
    output, stop = dry_run(capsys, str(run / "r.yaml"))
    assert stop is None
    path = output.split("1 left out, listed in ")[1].split(";")[0]
    (line,) = Path(path).read_text().splitlines()
    assert json.loads(line)["source"] == "sft.json[5]"


def test_what_max_samples_leaves_out_is_said(run, capsys):
    output, _ = dry_run(capsys, "tiny_cpu", "max_samples=3")
    assert "96 conversations, of which max_samples trains on the first 3" in output
    assert trained_on(96, {"max_samples": 1000}) == "96 conversations"


def test_a_start_writes_the_copy_and_hands_over(run, started, capsys):
    train.main(["tiny_cpu"])
    ((_, env),) = started
    settings = launched(started[0])
    assert settings["dataset_dir"] == str(run / "models/sft/data")
    assert len(json.loads((run / "models/sft/data/deepeyes.json").read_text())) == 96
    assert (env["NPROC_PER_NODE"], env["NNODES"]) == ("1", "1")
    assert "FORCE_TORCHRUN" not in env
    assert shutil.which("torchrun", path=env["PATH"])
    assert "CUDA_VISIBLE_DEVICES" not in env
    assert "96 conversations, 0 left out" in capsys.readouterr().out


def finish(run, *, steps=400):
    """The run as LLaMA-Factory leaves it at its end."""
    sft = run / "models/sft"
    checkpoint = write_checkpoint(sft / f"checkpoint-{steps}", steps)
    for path in checkpoint.iterdir():
        if path.is_file():
            shutil.copy(path, sft)
    (sft / "trainer_state.json").write_text(json.dumps({"global_step": steps, "max_steps": steps}))
    return sft


def test_a_finished_run_says_so_and_does_nothing(run, started, capsys):
    train.main(["tiny_cpu"])
    finish(run)
    before = snapshot(run)
    train.main(["tiny_cpu", "logging_steps=1"])
    train.main(["tiny_cpu", "--dry-run"])
    assert capsys.readouterr().out.count("is finished and was trained with this recipe; nothing to do") == 2
    assert len(started) == 1
    assert snapshot(run) == before


@pytest.mark.parametrize(
    ("change", "difference", "finished"),
    [
        ("learning_rate=1e-5", "learning_rate was 0.002, now 1e-05", True),
        ("adam_beta1=0.8", "adam_beta1 was not set, now 0.8", False),
        ("a row more", "the data: there were 96 conversations, now 97", True),
        ("other rows", "the data: there were 96 conversations, now 96, with other content", False),
    ],
)
def test_going_on_with_another_recipe_or_other_data_is_refused_with_what_differs(
    run, started, capsys, finished, change, difference
):
    train.main(["tiny_cpu"])
    sft = finish(run)
    if not finished:
        (sft / "trainer_state.json").unlink()
    words = ["tiny_cpu"]
    if "=" in change:
        words.append(change)
    else:
        rows = json.loads((run / "data/sft.json").read_text())
        rows = rows[1:] + rows[:1] if change == "other rows" else [*rows, rows[0]]
        (run / "data/sft.json").write_text(json.dumps(rows))
    before = snapshot(run)
    with pytest.raises(SystemExit, match="holds a run that differs from what is asked for") as stop:
        train.main(words)
    assert difference in str(stop.value)
    assert "--accept-changes" in str(stop.value)
    assert snapshot(run) == before
    assert len(started) == 1
    train.main([*words, "--accept-changes"])
    assert len(started) == 2
    settings = launched(started[1])
    assert settings["resume_from_checkpoint"] == str(sft / "checkpoint-400")
    assert not (sft / "trainer_state.json").exists()
    # What was accepted is what the run is from now on.
    assert "resuming from" in capsys.readouterr().out
    train.main(words)
    assert len(started) == 3


def test_a_run_of_an_older_version_is_compared_by_its_resolved_recipe(run, started):
    train.main(["tiny_cpu"])
    sft = finish(run)
    (sft / "run.json").unlink()
    settings = yaml.safe_load((sft / "recipe.resolved.yaml").read_text())
    settings["model_name_or_path"] = str(sft / "checkpoint-300")
    (sft / "recipe.resolved.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(SystemExit, match="learning_rate was 0.002, now 0.1"):
        train.main(["tiny_cpu", "learning_rate=0.1"])


def test_an_incomplete_checkpoint_is_set_aside_when_training_goes_on(run, started, capsys):
    train.main(["tiny_cpu"])
    sft = run / "models/sft"
    write_checkpoint(sft / "checkpoint-100", 100)
    write_checkpoint(sft / "checkpoint-200", 200)
    (sft / "checkpoint-200/processor_config.json").unlink()
    train.main(["tiny_cpu"])
    settings = launched(started[1])
    assert settings["resume_from_checkpoint"] == str(sft / "checkpoint-100")
    assert "incomplete-checkpoint-200 was not written to its end" in capsys.readouterr().out
    assert sorted(path.name for path in sft.glob("*checkpoint*")) == ["checkpoint-100", "incomplete-checkpoint-200"]


def test_another_number_of_processes_is_a_difference(tmp_path):
    from cold_start.run_state import differences

    write_checkpoint(tmp_path / "checkpoint-1", 1)
    record(tmp_path, {"seed": 1}, RunFacts("x", 5, 32))
    (difference,) = differences(tmp_path, {"seed": 1}, RunFacts("x", 5, 8))
    assert "there were 32, now 8" in difference
    assert differences(tmp_path, {"seed": 1}, RunFacts("x", 5, 32)) == []
    (tmp_path / "recipe.resolved.yaml").unlink()
    assert "cannot be read" in differences(tmp_path, {"seed": 1}, None)[0]


@pytest.mark.parametrize(
    ("settings", "environ", "gpus", "launch"),
    [
        ({"use_cpu": True}, {}, 0, Launch(1, 0, 1, False)),
        ({"use_cpu": True}, {"FORCE_TORCHRUN": "1"}, 0, Launch(1, 0, 1, True)),
        ({"use_cpu": True}, {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}, 0, Launch(1, 0, 2, True)),
        ({}, {}, 1, Launch(1, 0, 1, False)),
        ({"deepspeed": "z3.json"}, {}, 1, Launch(1, 0, 1, True)),
        ({}, {}, 8, Launch(1, 0, 8, True)),
        ({"deepspeed": "z3.json"}, {"NPROC_PER_NODE": "4"}, 8, Launch(1, 0, 4, True)),
        (
            {},
            {"NNODES": "4", "NODE_RANK": "3", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"},
            1,
            Launch(4, 3, 1, True),
        ),
    ],
)
def test_processes_are_those_that_the_machine_and_the_variables_ask_for(settings, environ, gpus, launch):
    assert plan_launch(settings, environ, gpus) == launch
    environment = launch_environment(launch, environ)
    assert (environment.get("FORCE_TORCHRUN") == "1") == launch.torchrun
    assert environment["NPROC_PER_NODE"] == str(launch.processes_per_node)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"NNODES": "2"}, "not set: NODE_RANK, MASTER_ADDR, MASTER_PORT"),
        ({"NNODES": "two"}, "NNODES is 'two'; expected a number of at least 1"),
        ({"NPROC_PER_NODE": "0"}, "NPROC_PER_NODE is '0'"),
        (
            {"NNODES": "2", "NODE_RANK": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"},
            "NODE_RANK is 2, with 2 nodes it can be 0 to 1",
        ),
    ],
)
def test_variables_of_several_nodes_that_cannot_work_are_named(environ, message):
    with pytest.raises(RecipeError, match=message):
        plan_launch({}, environ, 8)


def test_more_processes_than_gpus_are_refused():
    with pytest.raises(RecipeError, match="NPROC_PER_NODE is 8, and this machine has 4 GPUs"):
        machine.check_gpus({}, Launch(1, 0, 8, True), 4)


@pytest.mark.parametrize(
    ("nodes", "processes", "hint"),
    [
        (4, 8, "128 conversations a step: 4 nodes x 8 processes x 1 each x 4 accumulated"),
        (1, 8, "32 conversations a step: 1 nodes x 8 processes x 1 each x 4 accumulated; for the 128 that the recipe's values "
               "were chosen for: gradient_accumulation_steps=16"),
        (1, 3, "12 conversations a step: 1 nodes x 3 processes x 1 each x 4 accumulated; 128, which the recipe's values were "
               "chosen for, cannot be reached with these processes"),
    ],
)  # fmt: skip
def test_the_published_batch_size_is_kept_by_a_hint(nodes, processes, hint):
    recipe = load_recipe("qwen2_5_vl_7b")
    assert batch_hint(recipe.llamafactory, Launch(nodes, 0, processes, True), recipe.cold_start.batch_size) == hint


def test_sizes_of_the_published_models_are_those_of_their_arithmetic():
    settings = load_recipe("qwen2_5_vl_7b").llamafactory
    size = ModelSize(total=8_292_166_656, trained=7_615_616_512)
    # 108 GB by the audit's arithmetic.
    assert 107e9 < checkpoint_bytes(size, settings) < 111e9
    assert num_steps(65_807, settings, Launch(4, 0, 8, True)) == 1545


def test_a_checkpoint_of_the_toy_model_is_as_large_as_computed(toy):
    settings = load_recipe("tiny_cpu").llamafactory
    size = machine.model_size(toy / "models/base", settings)
    # Seen: model.safetensors 4.44 MB, optimizer.pt 8.93 MB.
    assert checkpoint_bytes(size, settings) == pytest.approx(4_438_440 + 8_925_323, rel=0.02)
    frozen = machine.model_size(
        toy / "models/base", settings | {"freeze_vision_tower": True, "freeze_multi_modal_projector": True}
    )
    assert frozen.total == size.total == size.trained > frozen.trained > 0.5 * size.total


def test_a_disk_that_the_checkpoints_do_not_fit_is_refused(tmp_path):
    settings = load_recipe("qwen2_5_vl_7b").llamafactory
    with pytest.raises(
        RecipeError, match=r"a checkpoint takes 1,0\d\d,\d\d\d GB, 3 at once; needed .* save_only_model=true"
    ):
        machine.check_disk(tmp_path / "new", ModelSize(8 * 10**13, 7 * 10**13), settings, 1545)


def test_what_images_become_is_said_once_for_cold_start_rl_and_evaluation(run, capsys):
    # No more than the model's own processor lets through, whatever the recipe says.
    for words in ([], ["image_max_pixels=262144"]):
        output, _ = dry_run(capsys, "tiny_cpu", *words)
        assert "images have 3,136 to 12,544 pixels: 1024x768 as 112x84, 12 tokens; 1920x1080 as 140x84, 15 tokens" in output
    output, stop = dry_run(capsys, "tiny_cpu", "image_max_pixels=2000")
    assert "image_max_pixels is 2,000; models of this family are shown at least 3,136" in output
    assert "not ready" in stop


def test_a_disk_that_copies_of_images_do_not_fit_is_refused(tmp_path):
    settings = load_recipe("tiny_cpu").llamafactory
    size = ModelSize(1000, 1000)
    assert ", images 4 MB;" in machine.check_disk(tmp_path / "new", size, settings, 400, copies=4_000_000)
    with pytest.raises(RecipeError, match="images 1,000,000 GB"):
        machine.check_disk(tmp_path / "new", size, settings, 400, copies=10**15)


def test_nothing_of_the_check_is_left_in_the_environment(run, capsys):
    before = dict(os.environ)
    dry_run(capsys, "tiny_cpu")
    assert dict(os.environ) == before


def test_special_tokens_that_were_escaped_are_said(run, capsys):
    rows = json.loads((run / "data/sft.json").read_text())
    rows[0]["messages"][1]["content"] += " <|im_end|>"
    (run / "data/sft.json").write_text(json.dumps(rows))
    output, stop = dry_run(capsys, "tiny_cpu")
    assert "special tokens escaped in 1 messages" in output
    assert stop is None
