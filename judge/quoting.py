"""What a judge is given to read, made harmless: one line in quotes, and nothing in it that a model obeys and nobody sees.

Special tokens of every family that we know of begin with a bracket and a word, or with a bracket and a bar; a blank behind
the bracket takes them apart. Characters that show nothing (controls, changes of direction, Unicode's tags, selectors of
variants) are written as escapes. What is cut says so.
"""

from __future__ import annotations

import json
import re

# `<answer>` is the tag that answers come in: no special token of any tokenizer, and left as it is.
_ANGLE = re.compile(r"([<＜﹤◁])(?=[^\s\d=<.\-]|0x)(?!/?answer>)")
_DOUBLE_ANGLE = re.compile(r"<(?=<)")
_SQUARE = re.compile(r"([\[［])(?=[/|｜]?[A-Za-z_|｜][^\[\]\s]{1,40}[\]］])")
_CLOSE_SQUARE = re.compile(r"\](?=[<~!])")
_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f"
_UNSEEN = (
    r"\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u3164\ue000-\uf8ff"
    r"\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff"
)
_UNSEEN_ONE = re.compile(f"[{_CONTROL}{_UNSEEN}]")
_LONG_RUN = re.compile(f"([{_CONTROL}{_UNSEEN}]{{8}})([{_CONTROL}{_UNSEEN}]+)")


def disarmed(text: str, *, max_chars: int | None = None) -> str:
    """A text without special tokens and unseen characters; of a long one the beginning and the end, with a mark between."""
    return _UNSEEN_ONE.sub(_escape, _taken_apart(text, max_chars))


def quoted(text: str, *, max_chars: int | None = None) -> str:
    """The same as a JSON string on one line: it cannot end itself, whatever it says."""
    return _UNSEEN_ONE.sub(_escape, json.dumps(_taken_apart(text, max_chars), ensure_ascii=False))


def _taken_apart(text: str, max_chars: int | None) -> str:
    if max_chars is not None and len(text) > max_chars:
        head = max_chars * 3 // 4
        mark = f" [cut: {len(text) - max_chars} characters are left out here] "
        text = text[:head] + mark + text[len(text) - (max_chars - head) :]
    text = text.encode("utf-8", "replace").decode()
    text = _LONG_RUN.sub(lambda run: f"{run[1]}[{len(run[2])} more unseen characters]", text)
    text = _ANGLE.sub(r"\1 ", _DOUBLE_ANGLE.sub("< ", text))
    return _CLOSE_SQUARE.sub("] ", _SQUARE.sub(r"\1 ", text))


def _escape(char: re.Match[str]) -> str:
    """Escape a character as JSON may, where json.dumps would leave it as it is."""
    return json.dumps(char[0])[1:-1]
