"""Which episodes of a run are meant: the filters of an address, as a condition of SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAMES = ("step", "category", "stop_reason", "tool", "min_reward", "max_reward", "text")
"""`tool=none`: no call at all; `text`: in item, answer or gold."""


def asked_filters(query: Mapping[str, str]) -> dict[str, str]:
    """The filters in a query, without those that are empty."""
    return {name: query[name] for name in NAMES if query.get(name)}


def where(filters: Mapping[str, str]) -> tuple[str, list[Any]]:
    """A condition on `episodes` and its values.

    Args:
        filters: Of `NAMES`; what is not given is not asked for.

    Raises:
        ValueError: A value that its filter cannot have.
    """
    clauses, values = ["1"], list[Any]()
    for name in ("step", "category", "stop_reason"):
        if name in filters:
            clauses.append(f"{name} IS ?")
            values.append(int(filters[name]) if name == "step" and filters[name].lstrip("-").isdigit() else filters[name])
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
    return " AND ".join(clauses), values
