"""A table of sample episodes with their images, in those of verl's trackers that show one.

verl's own table (`trainer.log_val_generations`) is of validation and has no images. For trackers that show no images, all
that is here, and every other episode, stands in the run's `rollouts/` (`deepeyes view`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

SAMPLES_KEY = "trainer.deepeyes.samples"
"""Where the recipe's `agent.samples` stands in verl's configuration."""
TABLE = "train/episodes"
_HEIGHT_PX = 336
_GAP_PX = 8
_MOST_IMAGES = 8


class TrackedEpisodes(BaseModel):
    """`agent.samples:` of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: int = Field(10, ge=1)
    """Of so many steps one has a table, those that it divides; the first step has one too."""
    number: int = Field(4, ge=0)
    """Episodes of a table, of different groups as long as there are any; 0 for no table."""

    def wanted(self, step: int) -> bool:
        """Whether a step has a table."""
        return self.number > 0 and (step == 1 or step % self.every == 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleEpisode:
    """A row of the table."""

    episode_id: str
    source: str
    prompt: str
    response: str
    """Replies and observations, as the model's tokens read."""
    score: float
    acc: float
    tool_calls: int
    stop_reason: str
    picture: Image.Image | None
    """Its images side by side, in the order in which the model saw them."""

    @property
    def columns(self) -> dict[str, Any]:
        """All but the picture."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "picture"}


def side_by_side(images: Sequence[Image.Image]) -> Image.Image | None:
    """The first eight images in one row, at most 336 pixels high; None for no image."""
    fitted = []
    for image in images[:_MOST_IMAGES]:
        copy = image.convert("RGB")
        copy.thumbnail((4 * _HEIGHT_PX, _HEIGHT_PX))
        fitted.append(copy)
    if not fitted:
        return None
    width = sum(image.width for image in fitted) + _GAP_PX * (len(fitted) - 1)
    row = Image.new("RGB", (width, max(image.height for image in fitted)), "white")
    left = 0
    for image in fitted:
        row.paste(image, (left, 0))
        left += image.width + _GAP_PX
    return row


def shows_samples(trackers: Mapping[str, Any]) -> bool:
    """Whether any of verl's trackers shows the table."""
    return any(name in _WRITERS for name in trackers)


def log_samples(trackers: Mapping[str, Any], samples: Sequence[SampleEpisode], step: int) -> None:
    """Put the table into each tracker that shows it.

    Args:
        trackers: `Tracking.logger` of verl: name -> tracker.
        samples: The rows.
        step: Of training.
    """
    for name, tracker in trackers.items():
        if name in _WRITERS:
            _WRITERS[name](tracker, samples, step)


def _wandb(wandb: Any, samples: Sequence[SampleEpisode], step: int) -> None:
    table = wandb.Table(columns=[*samples[0].columns, "images"])
    for one in samples:
        table.add_data(*one.columns.values(), wandb.Image(one.picture) if one.picture else None)
    wandb.log({TABLE: table}, step=step)


def _tensorboard(tracker: Any, samples: Sequence[SampleEpisode], step: int) -> None:
    # Recipes are read, and plans made, where this is not installed.
    import numpy as np

    for number, one in enumerate(samples):
        facts = " · ".join(f"{name} {value}" for name, value in one.columns.items() if name not in ("prompt", "response"))
        # Four spaces before a line are code in Markdown: tags and programs stay as they are.
        text = "\n".join(f"    {line}" for line in (*one.prompt.splitlines(), "", *one.response.splitlines()))
        tracker.writer.add_text(f"{TABLE}/{number}", f"{facts}\n\n{text}", step)
        if one.picture is not None:
            tracker.writer.add_image(f"{TABLE}/{number}", np.asarray(one.picture), step, dataformats="HWC")
    tracker.writer.flush()


def _mlflow(_: Any, samples: Sequence[SampleEpisode], step: int) -> None:
    mlflow = import_module("mlflow")
    columns: dict[str, list[Any]] = {name: [one.columns[name] for one in samples] for name in samples[0].columns}
    columns["images"] = [one.picture and mlflow.Image(one.picture) for one in samples]
    mlflow.log_table(columns, artifact_file=f"{TABLE}/step_{step:06d}.json")


def _swanlab(swanlab: Any, samples: Sequence[SampleEpisode], step: int) -> None:
    headers = [*samples[0].columns]
    table = swanlab.echarts.Table()
    table.add(headers=headers, rows=[[str(value) for value in one.columns.values()] for one in samples])
    pictures = [swanlab.Image(one.picture, caption=one.episode_id) for one in samples if one.picture]
    swanlab.log({TABLE: table} | ({f"{TABLE}_images": pictures} if pictures else {}), step=step)


def _trackio(tracker: Any, samples: Sequence[SampleEpisode], step: int) -> None:
    pandas, trackio = import_module("pandas"), import_module("trackio")
    rows = [one.columns | {"images": one.picture and trackio.Image(one.picture)} for one in samples]
    tracker.log({TABLE: trackio.Table(dataframe=pandas.DataFrame(rows))}, step=step)


_WRITERS: dict[str, Callable[[Any, Sequence[SampleEpisode], int], None]] = {
    "wandb": _wandb,
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "swanlab": _swanlab,
    "trackio": _trackio,
}
