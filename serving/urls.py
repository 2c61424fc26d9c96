"""Addresses of servers as people write them: in options, and in LLM_AS_A_JUDGE_BASE and CODE_SANDBOX_URL."""

from __future__ import annotations


def split_urls(text: str | None) -> tuple[str, ...]:
    """The URLs of a comma-separated list, without blanks; none if there is nothing but commas and blanks."""
    return tuple(url.strip() for url in (text or "").split(",") if url.strip())
