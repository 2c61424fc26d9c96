import io
import json
import shutil
import zipfile

import pytest

from cold_start.checkpoints import (
    checkpoints,
    is_finished,
    latest_checkpoint,
    set_aside_incomplete,
    what_is_missing,
)
from cold_start.recipe import load_recipe
from cold_start.train import resolve


def zipped() -> bytes:
    """What torch.save writes is a zip file, whose directory stands at its end."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data", b"x" * 5000)
    return buffer.getvalue()


def weights() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [100], "data_offsets": [0, 400]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(400)


def write_checkpoint(directory, step, *, deepspeed=False, shards=False):
    directory.mkdir(parents=True)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] if shards else ["model.safetensors"]
    for name in names:
        (directory / name).write_bytes(weights())
    if shards:
        (directory / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": dict(zip("ab", names, strict=True))})
        )
    for name in ("config.json", "tokenizer_config.json", "processor_config.json"):
        (directory / name).write_text("{}")
    (directory / "chat_template.jinja").write_text("x")
    (directory / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": 300}))
    (directory / "scheduler.pt").write_bytes(zipped())
    if deepspeed:
        folder = directory / f"global_step{step}"
        folder.mkdir()
        for rank in range(2):
            (folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_bytes(zipped())
            (folder / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt").write_bytes(zipped())
            (directory / f"rng_state_{rank}.pth").write_bytes(zipped())
        (directory / "latest").write_text(folder.name)
    else:
        (directory / "optimizer.pt").write_bytes(zipped())
        (directory / "rng_state.pth").write_bytes(zipped())
    return directory


LAYOUTS = {"one process": {}, "DeepSpeed": {"deepspeed": True, "shards": True}}
EVERYWHERE = ["processor_config.json", "chat_template.jinja", "trainer_state.json", "tokenizer_config.json", "config.json"]
FILES = {
    "one process": [*EVERYWHERE, "model.safetensors", "optimizer.pt", "scheduler.pt"],
    "DeepSpeed": [
        *EVERYWHERE, "model-00002-of-00002.safetensors", "latest", "global_step200/bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"
    ],
}  # fmt: skip
FAULTS = [(layout, name, fault) for layout, names in FILES.items() for name in names for fault in ("missing", "cut")]


# DeepSpeed can do without a scheduler of its own, but not with half of one.
@pytest.mark.parametrize(("layout", "name", "fault"), [*FAULTS, ("DeepSpeed", "scheduler.pt", "cut")])
def test_a_checkpoint_that_lacks_any_of_its_files_or_the_end_of_one_is_not_resumed_from(tmp_path, layout, name, fault):
    write_checkpoint(tmp_path / "checkpoint-100", 100, **LAYOUTS[layout])
    newest = write_checkpoint(tmp_path / "checkpoint-200", 200, **LAYOUTS[layout])
    assert latest_checkpoint(tmp_path) == newest
    if fault == "missing":
        (newest / name).unlink()
    else:
        (newest / name).write_bytes((newest / name).read_bytes()[:-1] if (newest / name).stat().st_size > 2 else b"")
        if name == "latest":
            (newest / name).write_bytes(b"")
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    assert what_is_missing(newest)


def test_a_checkpoint_of_another_step_under_this_name_is_not_resumed_from(tmp_path):
    write_checkpoint(tmp_path / "checkpoint-100", 90)
    assert latest_checkpoint(tmp_path) is None


def test_a_run_that_saves_the_model_only_needs_no_optimizer(tmp_path):
    directory = write_checkpoint(tmp_path / "checkpoint-100", 100)
    (directory / "optimizer.pt").unlink()
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path, with_optimizer=False) == directory


def test_steps_are_compared_as_numbers(tmp_path):
    for step in (900, 1000, 80):
        write_checkpoint(tmp_path / f"checkpoint-{step}", step)
    (tmp_path / "checkpoint-x").mkdir()
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoint-1000"


def test_resuming_loads_the_model_from_the_newest_complete_checkpoint(tmp_path):
    for step in (100, 200, 300):
        write_checkpoint(tmp_path / f"checkpoint-{step}", step)
    (tmp_path / "checkpoint-300/processor_config.json").unlink()
    settings = resolve(load_recipe("tiny_cpu"), tmp_path)
    assert settings["model_name_or_path"] == settings["resume_from_checkpoint"] == str(tmp_path / "checkpoint-200")
    assert settings["overwrite_output_dir"] is False
    new = resolve(load_recipe("tiny_cpu"), tmp_path / "new")
    assert "resume_from_checkpoint" not in new
    # Else LLaMA-Factory would itself look for the newest folder.
    assert new["overwrite_output_dir"] is True
    adapter = load_recipe("tiny_cpu", ("finetuning_type=lora",))
    assert resolve(adapter, tmp_path)["model_name_or_path"] == adapter.llamafactory["model_name_or_path"]


def test_what_was_not_written_to_its_end_is_set_aside_and_never_deleted(tmp_path):
    for step in (100, 200, 300):
        write_checkpoint(tmp_path / f"checkpoint-{step}", step)
    (tmp_path / "checkpoint-300/latest").touch()
    moved = set_aside_incomplete(tmp_path, newer_than=tmp_path / "checkpoint-200")
    assert moved == [tmp_path / "incomplete-checkpoint-300"]
    assert [step for step, _ in checkpoints(tmp_path)] == [100, 200]
    write_checkpoint(tmp_path / "checkpoint-300", 300)
    assert set_aside_incomplete(tmp_path, newer_than=tmp_path / "checkpoint-200") == [
        tmp_path / "incomplete-checkpoint-300.2"
    ]


def test_a_run_is_finished_when_its_final_model_is_whole_and_no_checkpoint_says_otherwise(tmp_path):
    run = write_checkpoint(tmp_path / "run", 300)
    assert is_finished(run)
    write_checkpoint(run / "checkpoint-300", 300)
    assert is_finished(run)
    shutil.rmtree(run / "checkpoint-300")
    write_checkpoint(run / "checkpoint-200", 200)
    assert not is_finished(run)
    shutil.rmtree(run / "checkpoint-200")
    (run / "model.safetensors").write_bytes(weights()[:-1])
    assert not is_finished(run)
    (run / "model.safetensors").write_bytes(weights())
    (run / "trainer_state.json").write_text(json.dumps({"global_step": 299, "max_steps": 300}))
    assert not is_finished(run)
