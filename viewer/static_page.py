"""Self-contained web pages: images inside, nothing loaded from anywhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from markupsafe import Markup

from agent.episode import Episode, Turn
from agent.images import ImageFile, UnreadableImage
from agent.protocol import PYTHON, ToolCall
from agent.records import Rollout
from agent.trajectory import RecordReader, record_files
from viewer.pieces import pieces
from viewer.templates import render

_HERE = Path(__file__).parent
ShowImage = Callable[[ImageFile], Markup]
"""Makes the `<img>` of an image."""


def embedded(image: ImageFile, *, is_large: bool = False) -> Markup:
    """An image with its bytes inside the page; one that is not there, or is none, in words."""
    try:
        markup = Markup('<img class="{}" src="{}" alt="image of {}x{} px">')
        return markup.format("shown large" if is_large else "shown", image.data_uri(), *image.size)
    except (OSError, UnreadableImage) as error:
        return Markup('<span class="tag bad">an image cannot be shown: {}</span>').format(error)


def episode_card(
    title: str, episode: Episode, *, gold: str = "", correct: bool | None = None, show: ShowImage = embedded
) -> Markup:
    """One episode from question to answer, with images, code and output."""
    return render(
        _HERE / "episode.html",
        title=title,
        correct=correct,
        gold=gold,
        episode=episode,
        pieces=pieces,
        is_code=_is_code,
        is_image=lambda part: isinstance(part, ImageFile),
        show=show,
    )


def _is_code(turn: Turn) -> bool:
    return isinstance(turn.action, ToolCall) and turn.action.name == PYTHON


def rollout_card(rollout: Rollout) -> Markup:
    """One recorded episode with its facts."""
    facts = rollout.facts
    title = facts.item_id or rollout.episode.episode_id
    if facts.step is not None:
        title = f"step {facts.step} · {title}"
    if facts.sample:
        title += f" · sample {facts.sample}"
    if facts.reward is not None:
        title += f" · reward {facts.reward:.2f}"
    return episode_card(title, rollout.episode, gold=facts.gold, correct=facts.correct)


def write_episodes_page(directory: Path, path: Path, *, limit: int) -> int:
    """Write recorded episodes as one page.

    Returns:
        Number of episodes on it.

    Raises:
        FileNotFoundError: Nothing was recorded there.
    """
    readers = [RecordReader(path) for path in record_files(directory)]
    if not readers:
        raise FileNotFoundError(f"no episodes in {directory}; expected episodes.jsonl or episodes-*.jsonl there")
    rollouts = itertools.chain.from_iterable(reader.rollouts() for reader in readers)
    cards = [rollout_card(rollout) for rollout in itertools.islice(rollouts, limit)]
    left_out = sum(reader.unreadable for reader in readers)
    told = f", {left_out} lines cannot be read and are left out" if left_out else ""
    told = f"{len(cards)} episodes of {directory}{told}."
    page = render(_HERE / "episodes.html", title=f"Episodes of {directory.name}", told=told, cards=cards)
    path.write_text(page, encoding="utf-8")
    return len(cards)
