"""Addresses of servers as people write them: in options, and in LLM_AS_A_JUDGE_BASE and CODE_SANDBOX_URL."""

from __future__ import annotations

import re
from typing import Any

_LOGIN = re.compile(r"(?<=://)[^/?#\s]*@")


def split_urls(text: str | None) -> tuple[str, ...]:
    """The URLs of a comma-separated list, without blanks; none if there is nothing but commas and blanks."""
    return tuple(url.strip() for url in (text or "").split(",") if url.strip())


def without_logins(value: Any) -> Any:
    """A value as it may be written down or shown: names and passwords in front of a URL's host are `***`.

    Args:
        value: A text, or lists and mappings of them; what is no text stays as it is.
    """
    if isinstance(value, str):
        return _LOGIN.sub("***@", value)
    if isinstance(value, dict):
        return {key: without_logins(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(without_logins(part) for part in value)
    return value
