"""A conversation in a terminal: what happens is printed as it happens, once."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.status import Status

from agent.episode import Episode, StopReason, Turn
from agent.images import ImageFile, UnreadableImage
from agent.protocol import Malformed, ToolCall
from deepeyes.chat.events import EpisodeEnded, Event, TextWritten, TurnObserved, TurnReplied


class TerminalView:
    """Prints the events of a conversation.

    Args:
        console: Where.
        images: Folder for the images that the model was shown by its tools; None says only their sizes.
    """

    def __init__(self, console: Console, images: Path | None = None) -> None:
        self._console = console
        self._images = images
        self._running: Status | None = None

    def __call__(self, event: Event) -> None:
        """Print one event."""
        self._stop_waiting()
        match event:
            case TextWritten(text):
                self._console.print(text, end="", style="blue", markup=False, highlight=False, soft_wrap=True)
            case TurnReplied(_, turn):
                self._console.print()
                if isinstance(turn.action, ToolCall):
                    self._running = self._console.status(f"running {turn.action.name}")
                    self._running.start()
            case TurnObserved(_, turn):
                self._observation(turn)
            case EpisodeEnded():
                self._end(event)

    def _stop_waiting(self) -> None:
        if self._running is not None:
            self._running.stop()
            self._running = None

    def _observation(self, turn: Turn) -> None:
        assert turn.observation is not None
        for part in turn.observation.parts():
            if isinstance(part, str):
                self._console.print(part.strip("\n"), style="yellow", markup=False, highlight=False, soft_wrap=True)
            else:
                self._console.print(self._shown(part), style="yellow", markup=False, highlight=False, soft_wrap=True)

    def _shown(self, image: ImageFile) -> str:
        try:
            width_px, height_px = image.size
        except UnreadableImage as error:
            return f"[an image that cannot be read: {error}]"
        where = ""
        if self._images is not None:
            self._images.mkdir(parents=True, exist_ok=True)
            path = self._images / f"{image.sha256[:12]}.{image.mime.removeprefix('image/')}"
            path.write_bytes(image.data)
            where = f" -> {path}"
        return f"[image of {width_px}x{height_px} px{where}]"

    def _end(self, event: EpisodeEnded) -> None:
        episode, console = event.episode, self._console
        if event.problem:
            console.print(event.problem, style="red", markup=False)
        if event.recorded is not None:
            where = f"recorded in {event.recorded}; look at it with: deepeyes view {event.recorded}"
            console.print(where, markup=False, soft_wrap=True)
        if episode.failed:
            return  # the one who asked says it, as an error
        console.print(episode.answer or f"(no answer{_why_none(episode)})", style="bold", markup=False)
        searches = sum(episode.calls(tool) for tool in ("search", "image_search"))
        asked = f", {searches} searches" if searches else ""
        spent = f"{len(episode.turns)} turns, {episode.num_tokens} tokens, {episode.wall_s:.1f} s{asked}"
        console.print(f"({episode.stop_reason.value}, {spent})", markup=False)


def _why_none(episode: Episode) -> str:
    """What the last reply lacks, where that ended the episode."""
    action = episode.turns[-1].action if episode.turns else None
    if episode.stop_reason is not StopReason.NO_ACTION or not isinstance(action, Malformed):
        return ""
    return f": the last reply holds {action.reason}"
