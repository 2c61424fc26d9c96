"""Marks of layout: taken off where they enclose a whole text, and only there.

What carries meaning stays: superscripts, primes, factorials, signs, the case of letters, brackets.
"""

from __future__ import annotations

import functools
import re
import unicodedata

MAX_CHARS = 1000
"""A longer text is compared as it stands, and nothing is read out of it."""
_MAX_LAYERS = 8
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_SPACES = dict.fromkeys([0xA0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000], " ")
_INVISIBLE = dict.fromkeys([0xAD, 0x200B, 0x2060, 0xFEFF])
_SAME_SIGN = str.maketrans(
    {
        **dict.fromkeys("‐‑‒–—−", "-"), **dict.fromkeys("’‘′", "'"), **dict.fromkeys("“”„″", '"'),
        **dict.fromkeys("⁄∕", "/"), **dict.fromkeys("✕✖", "×"),
        "。": ".", "℃": "°C", "℉": "°F", "\u03bc": "\u00b5", "\u2126": "\u03a9", "⋅": "·",
    }
)  # fmt: skip
_SIGNS: dict[int, int | str | None] = {**_FULL_WIDTH, **_SPACES, **_INVISIBLE, **_SAME_SIGN}
_PAIRS = (
    ("**", "**"), ("```", "```"), ("`", "`"), ("*", "*"), ("$$", "$$"), ("$", "$"), ('"', '"'), ("'", "'"),
    (r"\(", r"\)"), (r"\[", r"\]"), ("<b>", "</b>"), ("<i>", "</i>"), ("<em>", "</em>"), ("<strong>", "</strong>"),
    ("<u>", "</u>"), ("<p>", "</p>"), ("<span>", "</span>"), ("<answer>", "</answer>"),
)  # fmt: skip
_COMMANDS = (r"\boxed", r"\fbox", r"\text", r"\textbf", r"\textit", r"\mathrm", r"\mbox")
_FENCE_LANGUAGE = re.compile(r"[a-zA-Z]{1,12}\n")
_ANNOUNCED = re.compile(
    r"(?:(?:so|thus|therefore|hence),? )?(?:the |my )?(?:final |correct |right )?answer(?: is ?:|:| is\b| =)\s*(?=\S)",
    re.IGNORECASE,
)


def plain(text: str) -> str:
    """One sign for each meaning (full width, dashes, quotes, spaces), and single spaces; digits above a line stay there."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_SIGNS))
    return " ".join(text.split())


@functools.lru_cache(8192)
def peel(text: str) -> str:
    """The text without what encloses the whole of it: bold, quotes, fences, maths signs, a box, an announcement, a stop."""
    fenced = text.strip()
    if fenced.startswith("```") and (language := _FENCE_LANGUAGE.match(fenced, 3)):
        text = "```" + fenced[language.end() :]
    text = plain(text)
    for _ in range(_MAX_LAYERS):
        shorter = _layer(text)
        if shorter == text:
            break
        text = shorter
    return text


def _layer(text: str) -> str:
    if not text or (text[0].isalnum() and text[-1].isalnum() and "nswer" not in text and "NSWER" not in text):
        return text
    if text.endswith(".") and len(text) > 1 and text[-2] not in ". ":
        return text[:-1]
    if text[0] == "\\":
        for command in _COMMANDS:
            if text.startswith(command + "{") and _closes(text, len(command)):
                return text[len(command) + 1 : -1].strip()
    for start, end in _PAIRS:
        if text.startswith(start) and text.endswith(end) and len(text) > len(start) + len(end):
            inner = text[len(start) : -len(end)]
            if start not in inner and end not in inner and inner.strip():
                return inner.strip()
    announced = _ANNOUNCED.match(text)
    return text[announced.end() :] if announced is not None else text


def _closes(text: str, place: int) -> bool:
    """Whether the brace that opens at `place` is closed by the last character."""
    depth = 0
    for number in range(place, len(text)):
        char = text[number]
        if char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return number == len(text) - 1
    return False
