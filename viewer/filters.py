"""Which episodes of a run are meant: the filters of an address, as a condition of SQL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

NAMES = (
    "step", "source", "category", "stop_reason", "tool", "validation", "group", "min_reward", "max_reward", "text", "find",
    "reason",
)  # fmt: skip
"""`tool=none`: no call at all; `text`: in item, answer or gold; `find`: words of conversations; `reason`: of failures.py."""
TRUNCATED = ("max_turns", "length", "context_full", "token_budget", "deadline")
"""Ends that a limit brought about."""
_COLUMNS = {
    "step": "step", "source": "source", "category": "category", "stop_reason": "stop_reason", "validation": "validation",
    "group": "grp",
}  # fmt: skip
_WHOLE = ("step", "validation")
_MOST_PHRASES = 50
# Words of other records are of no use: an index that was made anew has other numbers for its episodes.
_SAME = "(SELECT made FROM said.meta) = (SELECT made FROM main.meta)"
# Thai, Lao, Burmese, Khmer, kana, and Han.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]"
)


def asked_filters(query: Mapping[str, str]) -> dict[str, str]:
    """The filters in a query, without those that are empty."""
    return {name: query[name] for name in NAMES if query.get(name)}


def spaced(text: str) -> str:
    """A text with every letter of a script that writes without spaces as a word of its own."""
    return _UNSPACED.sub(r" \g<0> ", text)


def phrases(query: str) -> list[str]:
    """What a conversation must hold: the words of a query, and what stands between double quotes as it stands.

    Raises:
        ValueError: There is no word in it, or too many.
    """
    found = [quoted or word for quoted, word in re.findall(r'"([^"]*)"|([^\s"]+)', query)]
    found = [phrase.strip() for phrase in found if re.search(r"\w", phrase)]
    if not found:
        raise ValueError(f"there is no word in {query[:100]!r}; write some letters or digits")
    if len(found) > _MOST_PHRASES:
        raise ValueError(f"{len(found)} words are too many to look for; give at most {_MOST_PHRASES}")
    return found


def matching(query: str) -> str:
    """A query in FTS5's own language, with nothing of it taken for an operator.

    Raises:
        ValueError: There is no word in it.
    """
    return " AND ".join(f'"{spaced(phrase)}"' for phrase in phrases(query))


def where(filters: Mapping[str, str]) -> tuple[str, list[Any]]:
    """A condition on `episodes` and its values.

    Args:
        filters: Of `NAMES`; what is not given is not asked for.

    Raises:
        ValueError: A value that its filter cannot have.
    """
    clauses, values = ["1"], list[Any]()
    for name, column in _COLUMNS.items():
        if name in filters:
            clauses.append(f"{column} IS ?")
            text = filters[name]
            values.append(int(text) if name in _WHOLE and text.removeprefix("-").isdecimal() else text)
    if filters.get("tool") == "none":
        clauses.append("tool_calls = 0")
    elif "tool" in filters:
        clauses.append("id IN (SELECT id FROM tools WHERE tool = ?)")
        values.append(filters["tool"])
    for name, sign in (("min_reward", ">="), ("max_reward", "<=")):
        if name in filters:
            clauses.append(f"reward {sign} ?")
            values.append(float(filters[name]))
    if filters.get("text"):
        clauses.append("(item_id LIKE ? ESCAPE '\\' OR answer LIKE ? ESCAPE '\\' OR gold LIKE ? ESCAPE '\\')")
        pattern = "".join("\\" + letter if letter in "%_\\" else letter for letter in filters["text"])
        values += [f"%{pattern}%"] * 3
    if filters.get("find"):
        clauses.append(f"id IN (SELECT rowid FROM said.words WHERE words MATCH ?) AND {_SAME}")  # noqa: S608
        values.append(matching(filters["find"]))
    if filters.get("reason"):
        kind, _, reason = filters["reason"].partition(":")
        clauses.append(f"id IN (SELECT id FROM said.reasons WHERE kind = ? AND reason = ?) AND {_SAME}")  # noqa: S608
        values += [kind, reason]
    return " AND ".join(clauses), values
