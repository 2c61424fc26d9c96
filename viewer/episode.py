"""One episode as the page wants it: texts in pieces, code highlighted, tokens with mask and log-probability."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from agent.messages import IMAGE_PLACEHOLDER
from agent.trajectory import episode_from_row, tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_REWARD_PARTS = ("reward", "accuracy", "correct", "format", "decided_by", "gold")


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
            model = Path(yaml.safe_load((parent / "recipe.resolved.yaml").read_text(encoding="utf-8"))["run"]["model"])
            return Tokenizer.from_file(str(model / "tokenizer.json"))
        except Exception:  # noqa: S112, BLE001 - a guess that fails is no tokenizer; the library raises bare Exception
            continue
    return None


def describe(row: Mapping[str, Any], directory: Path, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """What the page shows of a parsed line."""
    facts = row.get("facts") or {}
    return {
        "episode_id": row["episode_id"],
        "stop_reason": row["stop_reason"],
        "answer": row["answer"],
        "failure": row["failure"],
        "wall_s": row.get("wall_s"),
        "rewards": {name: facts[name] for name in _REWARD_PARTS if name in facts},
        "facts": {name: value for name, value in facts.items() if name not in _REWARD_PARTS},
        "opening": [_message(message) for message in row["opening"]],
        "turns": [_turn(turn) for turn in row["turns"]],
        "tokens": _tokens(row, directory, tokenizer),
    }


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": message["role"], "parts": list(_parts(message))}


def _parts(message: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Texts and images in reading order."""
    images = iter(message["images"])
    for number, text in enumerate(message["text"].split(IMAGE_PLACEHOLDER)):
        if number:
            yield {"image": next(images)}
        if text.strip():
            yield {"text": text}


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    action = turn["action"]
    code = action["arguments"].get("code") if action.get("tool") == "python" else None
    text = turn["primer"] + turn["text"]
    return {
        "text": text.partition("<code>")[0] if code is not None else text,
        "code": None if code is None else highlight(str(code), PythonLexer(), HtmlFormatter(nowrap=True)),
        "action": action,
        "finish": turn["finish"],
        "tokens": turn["num_tokens"],
        "observation": None if turn["observation"] is None else _message(turn["observation"]),
        "tool_error": turn["tool_error"],
        "seconds": {name: turn.get(name, 0.0) for name in ("at_s", "reply_s", "tool_s", "waited_s")},
    }


def _tokens(row: Mapping[str, Any], directory: Path, tokenizer: Tokenizer | None) -> list[list[Any]]:
    """[text, mask, log-probability, times in a row] each; equal context tokens in a row, as of an image, are one entry."""
    ids, mask, logprobs = tokens(episode_from_row({**row, "opening": [], "turns": _without_images(row["turns"])}, directory))
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


def _without_images(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """So that no image file is read to show tokens."""
    return [{**turn, "observation": None} for turn in turns]
