"""Recorded episodes as LLaMA-Factory reads them: messages, and images by path in the order of their placeholders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from agent.episode import Episode
from agent.image_library import ImageLibrary
from agent.messages import Message
from agent.trajectory import RecordReader, record_files
from curation.rows import CuratedRow

TRAJECTORIES = "trajectories"
"""The fact that holds what `synthesise` kept of a row: a list of {step, episode_id, teacher}."""


def conversations(rows: Sequence[CuratedRow], run: Path, library: ImageLibrary) -> list[dict[str, Any]]:
    """A conversation of each trajectory that was kept, in the order of the rows."""
    wanted = {(one["step"], one["episode_id"]): (row, one) for row in rows for one in row.facts.get(TRAJECTORIES, ())}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for step in sorted({step for step, _ in wanted}):
        for path in record_files(run / step / "episodes"):
            reader = RecordReader(path)
            for place, head in reader.heads():
                if (entry := wanted.get((step, head.episode_id))) is not None:
                    episode = reader.at(place.offset).episode
                    found[step, head.episode_id] = conversation(episode, *entry, library)
    return [found[name] for name in wanted if name in found]


def conversation(episode: Episode, row: CuratedRow, facts: dict[str, Any], library: ImageLibrary) -> dict[str, Any]:
    """One conversation.

    Args:
        episode: Its opening has the row's images as the model saw them.
        row: Whose files stand for them: the trainer fits them itself.
        facts: Of the trajectory.
        library: Takes the images that tools gave.
    """
    names = list(row.images)
    seen = sum(len(message.images) for message in episode.opening)
    if seen != len(names):
        raise ValueError(f"{row.key}: the episode shows {seen} images, the row has {len(names)}")
    messages = [{"role": message.role, "content": message.text} for message in episode.opening]
    for said in _turns(episode):
        names += [library.put(image.data) for image in said.images]
        messages.append({"role": said.role, "content": said.text})
    return {
        "messages": messages,
        "images": [f"../../images/{name[:2]}/{name}" for name in names],
        "source": row.source,
        "licence": row.licence,
        "key": row.key,
        "teacher": facts["teacher"],
    }


def _turns(episode: Episode) -> Iterator[Message]:
    for turn in episode.turns:
        yield Message("assistant", turn.reply.primer + turn.reply.text)
        if turn.observation is not None:
            yield turn.observation
