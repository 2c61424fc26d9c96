"""What a judge puts around a short answer, taken off; and answers of a known form: a number, letters, JSON, one line.

A reply that is not of its form is None, "unreadable": it is asked for again and in the end not evaluated, never wrong.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

_LONGEST = 1000
"""Characters of a reply that may be a marked answer; what is longer is none."""
_LANGUAGE = r"(?:(?:[A-Za-z][\w+-]*)?[ \t]*\n|(?:json|text|txt|plaintext|markdown|md|latex|tex|math)\b[ \t]*)?"
_FENCE = re.compile(rf"```{_LANGUAGE}(?P<inside>(?:(?!```).)*?)\n?```", re.DOTALL)
_AROUND = tuple(
    re.compile(rf"(?P<start>{start})(?P<inside>.+)(?P<end>{end})", re.DOTALL)
    for start, end in (
        (r"\*\*\*", r"\*\*\*"), (r"\*\*", r"\*\*"), ("__", "__"), (r"\*", r"\*"), ("`", "`"), ('"', '"'), ("'", "'"),
        ("“", "”"), ("‘", "’"), ("«", "»"), ("「", "」"), (r"\$\$", r"\$\$"), (r"\$", r"\$"), (r"\\\(", r"\\\)"),
        (r"\\\[", r"\\\]"), (r"\\(?:boxed|fbox)\s*\{", r"\}"), (r"\\(?:text|math)(?:bf|rm|it)?\s*\{", r"\}"),
        ("<answer>", "</answer>"),
    )
)  # fmt: skip
_LEAD_WORDS = (
    r"(?:so,? |thus,? |therefore,? |hence,? )?(?:the |my )?(?:final |extracted |correct |short |chosen )*"
    r"(?:answer|option|choice|result|verdict|judge?ment)s?"
)
_LEAD = re.compile(
    rf"{_LEAD_WORDS}(?:\s+is|\s+are)?\s*(?:[:=：]\s*|(?<=is)\s+|(?<=are)\s+)"
    rf"|(?P<mark>\*\*|__)\s*{_LEAD_WORDS}\s*[:：]?\s*(?P=mark)\s*[:：]?\s*"
    rf"|#+\s*{_LEAD_WORDS}\s*[:：]?\s*\n",
    re.IGNORECASE,
)


def unmarked(text: str) -> str:
    """A short reply without fences, emphasis, quotes, dollars, a box, "The answer is" and a full stop around all of it."""
    if len(text) > _LONGEST:
        return text.strip()
    while True:
        before, text = text, text.strip()
        text = _LEAD.sub("", text, count=1) if _LEAD.match(text) else text
        if (fenced := _FENCE.fullmatch(text)) is not None:
            text = fenced["inside"]
            continue
        for around in _AROUND:
            found = around.fullmatch(text)
            if found is not None and _belongs_together(found):
                text = found["inside"]
                break
        if text.endswith((".", "。")) and not text.endswith(".."):
            text = text[:-1]
        if text == before:
            return text


def _belongs_together(found: re.Match[str]) -> bool:
    """Whether the marks at both ends are one pair: not `**a** or **b**`, `\\boxed{3} and \\boxed{5}`."""
    start, inside, end = found["start"], found["inside"], found["end"]
    if start == end:
        return start not in inside or (inside.startswith(start) and inside.endswith(end))
    start = start[-1] if end == "}" else start
    depth = 0
    for mark in re.findall(f"{re.escape(start)}|{re.escape(end)}", inside):
        depth += 1 if mark == start else -1
        if depth < 0:
            return False
    return depth == 0


_BOX = re.compile(r"\\boxed\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_NOTHING = frozenset(
    ("null", "none", "nothing", "n/a", "na", "no answer", "neither", "not given", "no final answer", "none of them", "z")
)
# A minus sign or a bullet, one answer or two: who cannot tell asks again.
_LEFT_OVER = re.compile(r"\*\*|```|\\boxed|</?[a-z_]+>|\n|\$.*\$|^[-•*#>]+\s|\.\.$|^\d+[.)]\s")
_PAIRS = frozenset(("**", "__", "``", '""', "''", "$$", "“”"))
_PROSE = re.compile(
    r"^(?:i|it|we|so|thus|therefore|hence|sorry|sure|okay|ok|here|based|final|extracted|let|according|as)\b[^\w]*\s+\w"
    r"|\b(?:is|are|equals|was|were|arrives|concludes|answer|solution|student|extracted|approximately|about|around)\b",
    re.IGNORECASE,
)


def one_line(reply: str) -> str | None:
    """An extraction: what is left when the marks are off; None for several lines, or a sentence about the answer."""
    if len(reply) > 20 * _LONGEST:
        return None
    boxes = {box.strip() for box in _BOX.findall(reply)}
    if len(boxes) == 1:
        reply = boxes.pop()
    elif boxes:
        return None
    text = unmarked(reply)
    if text.startswith("{") and (value := json_object(text)) is not None and len(value) == 1:
        text = unmarked(str(next(iter(value.values()))))
    if not text or _LEFT_OVER.search(text) or _PROSE.search(text) or text[0] + text[-1] in _PAIRS:
        return None
    return text


def is_nothing(text: str) -> bool:
    """Whether an extraction says that there was nothing to extract."""
    return text.strip(" .").casefold() in _NOTHING


def json_object(reply: str) -> dict[str, Any] | None:
    """A reply that is one JSON object, perhaps in a fence; None for anything else, and for two objects."""
    text = reply.strip()
    if (fenced := _FENCE.fullmatch(text)) is not None:
        text = fenced["inside"]
    try:
        value = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


_NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:(?<=\d)[eE][-+]?\d+)?")
_UNIT = re.compile(r"\s*(?:°|º|\\circ|\^\{?\\circ\}?|(?:square |cubic )?[A-Za-zµμΩ][A-Za-zµμΩ²³/^0-9\\{}]{0,14})")
_NO_UNIT = re.compile(r"\s*(?:or|and|to|of|e|in|x|million|billion|thousand|hundred|dozen|percent|k|m|bn)\b", re.IGNORECASE)


def number_text(reply: str) -> str | None:
    """The number that a reply is, as written but for commas of thousands; perhaps with π; a unit behind it is left out.

    None for what is no number, or more than one, such as "2 or 3", "1 of 4", "50 %", "3 million".
    """
    text = one_line(reply)
    if text is None:
        return None
    text = text.replace("−", "-").replace("\\,", "").replace("\\pi", "π").replace("\\%", "%")
    found = _NUMBER.match(text)
    assert found is not None
    digits, rest = found[0].replace(",", ""), text[found.end() :]
    if rest.strip().startswith("π"):
        digits, rest = (digits or "1") + "π", rest.strip()[1:]
    if not any(char.isdigit() for char in digits):
        return None
    if rest.strip() and (_NO_UNIT.match(rest) or not _UNIT.fullmatch(rest.rstrip())):
        return None
    return digits


def number(reply: str) -> float | None:
    """The value of `number_text`."""
    text = number_text(reply)
    if text is None:
        return None
    value = float(text.rstrip("π")) * (math.pi if text.endswith("π") else 1.0)
    return value if math.isfinite(value) else None


_LETTER_LIST = re.compile(r"\(?[A-Z]\)?(?:\s*(?:,|;|&|\band\b)\s*(?:and\s+)?\(?[A-Z]\)?)*|\(?[A-J]\)?(?:\(?[A-J]\)?)*")


def letters(reply: str) -> str | None:
    """Capital letters together, of `ACD` or `A, C and D`; None for anything else, such as a word. A letter stands once."""
    text = unmarked(reply)
    if not _LETTER_LIST.fullmatch(text):
        return None
    found = re.findall(r"[A-Z]", text)
    return "".join(found) if len(set(found)) == len(found) else None


def option(reply: str, choices: Mapping[str, str]) -> str | None:
    """The option that a reply is: its letter, letter and text, or text; `Z` for none of them; None for anything else."""
    text = unmarked(reply)
    if len(text) > _LONGEST:
        return None
    inner = unmarked(re.sub(r"^option\s+", "", text, flags=re.IGNORECASE))
    if len(inner) == 3 and inner[0] + inner[2] in ("()", "[]"):
        inner = inner[1]
    if inner in choices or inner == "Z":
        return inner
    if is_nothing(inner):
        return "Z"
    same = [letter for letter, words in choices.items() if words.strip() and inner.casefold() == words.strip().casefold()]
    if len(same) == 1:
        return same[0]
    led = re.match(r"[(\[]?([A-Z])[)\]]?\s*[.:)\-]?\s+(.+)", inner, re.DOTALL)
    if led is not None and led[1] in choices and unmarked(led[2]).casefold() == unmarked(choices[led[1]]).casefold():
        return led[1]
    return None
