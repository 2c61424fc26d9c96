"""Where metrics and sample episodes go: real TensorBoard files and a real offline wandb run, read back."""

import json
from types import SimpleNamespace

import pytest
from PIL import Image

from agent.recipes import RecipeError
from reinforcement_learning.checks.trackers import check_trackers
from reinforcement_learning.recipe import load_recipe
from reinforcement_learning.samples import SampleEpisode, TrackedEpisodes, log_samples, shows_samples, side_by_side
from reinforcement_learning.trackers import PACKAGES, tracker_environment


def sample(number, *, picture=True):
    images = [Image.new("RGB", (60, 40), (250, 0, 0)), Image.new("RGB", (20, 80), (0, 0, 250))]
    return SampleEpisode(
        episode_id=f"e{number}", source="tiles", prompt="What <colour>?", response="<code>\n```python\n1\n```\n</code> red",
        score=0.8, acc=1.0, tool_calls=1, stop_reason="answered", picture=side_by_side(images) if picture else None,
    )  # fmt: skip


def recipe(*overrides):
    return load_recipe("tiny_cpu", overrides)


def test_images_stand_side_by_side_and_large_ones_are_made_smaller():
    row = side_by_side([Image.new("RGB", (60, 40)), Image.new("L", (4000, 2000))])
    assert row.size == (60 + 8 + 672, 336)
    assert side_by_side([]) is None


def test_a_table_comes_with_the_first_step_and_then_as_often_as_is_set():
    assert [step for step in range(12) if TrackedEpisodes(every=5).wanted(step)] == [0, 1, 5, 10]
    assert not TrackedEpisodes(number=0).wanted(1)


def test_tensorboard_gets_text_and_picture_of_each_episode(tmp_path):
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="needs tensorboard: bash scripts/setup.sh")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # As verl's own adapter has it.
    tracker = SimpleNamespace(writer=tensorboard.SummaryWriter(tmp_path))
    log_samples({"console": None, "tensorboard": tracker}, [sample(0), sample(1, picture=False)], 3)
    tracker.writer.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0, "tensors": 0}).Reload()
    assert events.Tags()["images"] == ["train/episodes/0"]
    (shown,) = events.Images("train/episodes/0")
    assert (shown.step, shown.width, shown.height) == (3, 88, 80)
    (text,) = events.Tensors("train/episodes/1/text_summary")
    assert b"What <colour>?" in text.tensor_proto.string_val[0]


def test_wandb_gets_a_table_with_pictures(tmp_path):
    wandb = pytest.importorskip("wandb", reason="needs wandb: bash scripts/setup.sh")
    # wandb reads its variables once in a process, which another test may have done.
    run = wandb.init(project="p", name="n", id="samples", dir=tmp_path, mode="offline", settings={"silent": True})
    log_samples({"wandb": wandb}, [sample(0), sample(1, picture=False)], 3)
    run.finish()
    (table,) = tmp_path.rglob("*.table.json")
    rows = json.loads(table.read_text())
    assert rows["columns"][-1] == "images"
    # The pictures themselves travel in wandb's artifact of the table.
    assert [(row[0], row[-1]) for row in rows["data"]] == [("e0", "Image"), ("e1", None)]


def test_console_alone_shows_no_samples():
    assert not shows_samples({"console": None, "file": None})


def test_trackers_write_into_the_runs_folder_unless_told_otherwise(tmp_path, monkeypatch):
    for name in ("TENSORBOARD_DIR", "MLFLOW_TRACKING_URI", "SWANLAB_LOG_DIR", "TRACKIO_DIR"):
        monkeypatch.delenv(name, raising=False)
    found = tracker_environment(tmp_path, ["console", "tensorboard", "mlflow"], new=False)
    assert found == {"TENSORBOARD_DIR": str(tmp_path / "tensorboard"), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    monkeypatch.setenv("TENSORBOARD_DIR", "/elsewhere")
    assert tracker_environment(tmp_path, "tensorboard", new=False) == {"TENSORBOARD_DIR": "/elsewhere"}


def test_a_package_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(PACKAGES, "mlflow", "no_such_package")
    monkeypatch.setitem(PACKAGES, "trackio", "nor_this")
    with pytest.raises(RecipeError) as error:
        check_trackers(recipe("verl.trainer.logger=[console,mlflow,trackio]"))
    assert str(error.value).endswith("mlflow and trackio, not installed here: pip install no-such-package nor-this")


def test_a_tracker_that_verl_does_not_have_is_refused_with_those_it_has():
    with pytest.raises(RecipeError, match="verl has no tracker 'tensorbord' .* there are: console, tensorboard, wandb"):
        check_trackers(recipe("verl.trainer.logger=[tensorbord]"))


def test_swanlab_needs_a_login_or_another_mode(monkeypatch, tmp_path):
    monkeypatch.setitem(PACKAGES, "swanlab", "json")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SWANLAB_API_KEY", raising=False)
    with pytest.raises(RecipeError, match="set SWANLAB_MODE=local"):
        check_trackers(recipe("verl.trainer.logger=[swanlab]"))
    said = check_trackers(recipe("verl.trainer.logger=[console,swanlab]", "run.env={SWANLAB_MODE: local}"))
    assert said == "metrics go to swanlab (local), console, metrics.jsonl"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore")
def test_the_trackers_are_those_of_the_verl_that_is_installed():
    from verl.utils.tracking import Tracking

    assert set(PACKAGES) == set(Tracking.supported_backend)
