"""How long a query may be: what a source documents of its own, and what holds where it documents nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.loading import load_plugin

PROVIDERS = "agent.search.providers"


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryLimit:
    """The longest query that a source takes."""

    chars: int
    words: int | None = None
    """Parted by blanks; None where only characters are counted."""

    def __str__(self) -> str:
        """The words in which a prompt and an observation tell it to the model."""
        return f"{self.chars:,} characters" + ("" if self.words is None else f" and {self.words:,} words")

    def problem(self, query: str) -> str:
        """What is wrong with a query that is too long, and what to do; empty for one that fits."""
        words = len(query.split())
        if len(query) <= self.chars and (self.words is None or words <= self.words):
            return ""
        length = f"{len(query):,} characters" + ("" if self.words is None else f" and {words:,} words")
        return (
            f"`query` has {length}; this search takes at most {self}. Nothing was searched: ask again with the few words "
            "that matter most, or with one part of the question at a time"
        )


UNDOCUMENTED = QueryLimit(chars=500)
"""For sources that say nothing of their own: a longer query is hardly ever one."""
_REFUSED = re.compile(r"query\W+(?:is\W+|was\W+)?too\W+long|max(?:imum)?\W+query\W+length", re.IGNORECASE)


def limit_of(block: Mapping[str, Any] | None) -> QueryLimit:
    """The limit of the source that a recipe's `search:` block names: `QUERY_LIMIT` of the provider's file, if it has one.

    A name that is unknown is refused where the source is opened, not here.
    """
    try:
        module = load_plugin(PROVIDERS, str((block or {}).get("provider")))
    except LookupError:
        return UNDOCUMENTED
    limit = getattr(module, "QUERY_LIMIT", UNDOCUMENTED)
    assert isinstance(limit, QueryLimit)
    return limit


def refuses_length(status: int, text: str) -> bool:
    """Whether a server's answer says that the query is too long for it: by its status (414) or in words.

    Source of the words: Tavily's answer in CherryHQ/cherry-studio#2201; of the status: a proxy before SearXNG,
    searxng/searxng#3516.
    """
    return status == 414 or (status in (400, 422) and _REFUSED.search(text) is not None)
