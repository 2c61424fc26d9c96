"""One episode as the page wants it: texts in pieces, code coloured, tokens with mask and log-probability."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from agent.episode import Episode, Turn
from agent.episode_rows import action_to_row
from agent.images import ImageFile, UnreadableImage
from agent.messages import Message
from agent.record_images import RecordedImage
from agent.records import Rollout
from agent.trajectory import tokens
from viewer.coloured import MOST_COLOURED_CHARS, coloured
from viewer.pieces import Piece, pieces

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MOST_RECIPE_BYTES = 1 << 20
_REWARD_PARTS = ("reward", "score", "correct", "format", "decided_by", "gold")


def find_tokenizer(directory: Path, given: Path | None) -> Tokenizer | None:
    """The tokenizer of a run: as given, or of the model its recipe names; None if there is none to be found.

    Raises:
        FileNotFoundError: The one given is not there.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    if given is not None:
        path = given / "tokenizer.json" if given.is_dir() else given
        if not path.is_file():
            raise FileNotFoundError(f"no tokenizer at {path}")
        return Tokenizer.from_file(str(path))
    for parent in (directory, *directory.resolve().parents[:2]):
        try:
            recipe = parent / "recipe.resolved.yaml"
            if recipe.stat().st_size > _MOST_RECIPE_BYTES:
                continue
            model = Path(yaml.safe_load(recipe.read_text(encoding="utf-8"))["run"]["model"])
            return Tokenizer.from_file(str(model / "tokenizer.json"))
        except Exception:  # noqa: S112, BLE001 - a guess that fails is no tokenizer; the library raises bare Exception
            continue
    return None


def describe(rollout: Rollout, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """What the page shows of a rollout; its images by name, with their size."""
    episode, facts = rollout.episode, rollout.facts.named()
    return {
        "episode_id": episode.episode_id,
        "stop_reason": episode.stop_reason.value,
        "answer": episode.answer,
        "failure": episode.failure,
        "wall_s": episode.wall_s,
        "rewards": {name: facts[name] for name in _REWARD_PARTS if name in facts},
        "facts": {name: value for name, value in facts.items() if name not in _REWARD_PARTS},
        "opening": [_message(message) for message in episode.opening],
        "turns": [_turn(turn) for turn in episode.turns],
        "tokens": _tokens(episode, tokenizer),
    }


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role, "parts": list(_parts(message))}


def _parts(message: Message) -> Iterator[dict[str, Any]]:
    """Texts and images in reading order."""
    for part in message.parts():
        if isinstance(part, ImageFile):
            yield _image(part)
        elif part.strip():
            yield {"text": part}


def _image(image: ImageFile) -> dict[str, Any]:
    try:
        width_px, height_px = image.size
    except (OSError, UnreadableImage) as error:
        return {"image": image.sha256, "problem": str(error)}
    is_preview = isinstance(image, RecordedImage) and image.is_preview
    return {"image": image.sha256, "width": width_px, "height": height_px, "preview": is_preview}


def _turn(turn: Turn) -> dict[str, Any]:
    return {
        "pieces": [_piece(piece) for piece in pieces(turn)],
        "action": action_to_row(turn.action),
        "finish": turn.reply.finish,
        "tokens": turn.reply.num_tokens,
        "observation": None if turn.observation is None else _message(turn.observation),
        "tool_error": turn.tool_error,
        "seconds": {name: getattr(turn, name) for name in ("at_s", "reply_s", "tool_s", "waited_s")},
    }


def _piece(piece: Piece) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": piece.kind, "text": piece.text}
    if piece.kind == "code" and len(piece.text) <= MOST_COLOURED_CHARS:
        row["spans"] = list(coloured(piece.text))
    return row


def _tokens(episode: Episode, tokenizer: Tokenizer | None) -> list[list[Any]]:
    """[text, mask, log-probability, times in a row] each; equal context tokens in a row, as of an image, are one entry."""
    ids, mask, logprobs = tokens(episode)
    shown: list[list[Any]] = []
    last = None
    for token, sampled, logprob in zip(ids, mask, logprobs, strict=True):
        if not sampled and token == last and shown:
            shown[-1][3] += 1
            continue
        text = tokenizer.decode([token], skip_special_tokens=False) if tokenizer is not None else f"{token} "
        shown.append([text, sampled, round(logprob, 4) if sampled else None, 1])
        last = None if sampled else token
    return shown
