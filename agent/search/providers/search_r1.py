"""A retrieval server of the form that Search-R1 has introduced: dense passages of a corpus, by `POST /retrieve`.

The request is `{"queries": [str], "topk": int, "return_scores": true}`, the answer `{"result": [[passage, …]]}`. A passage
is `{"document": {…}, "score": float}`, or the document alone, or its text. A document has `contents`, of which the first
line is the title in quotes, or `title` and `text` (Search-R1, SkyRL, verl-tool and servers made after them).
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agent.errors import ToolUnavailable
from agent.search import WebResult
from agent.search.web import WebClient

_BODIES = ("contents", "text", "content", "passage", "snippet")
_LINKS = ("url", "link", "source")


class Settings(BaseModel):
    """`provider: search_r1`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(exclude=True)
    """Such as http://127.0.0.1:8000, with or without `/retrieve`."""


class Provider:
    """Text search. Its documents are no pages that could be opened."""

    def __init__(self, settings: Settings, web: WebClient) -> None:
        self._url = settings.base_url.rstrip("/").removesuffix("/retrieve") + "/retrieve"
        self._web = web

    async def search(self, query: str, *, max_hits: int) -> list[WebResult]:
        """See `SearchProvider`."""
        body = {"queries": [query], "topk": max_hits, "return_scores": True}
        answer = await self._web.json("POST", self._url, json=body)
        found = answer.get("result") if isinstance(answer, dict) else None
        passages = found[0] if isinstance(found, list) and len(found) == 1 else None
        if not isinstance(passages, list):
            raise ToolUnavailable(f"search_r1: expected `result` with one list of passages, got {str(answer)[:200]}")
        return [_hit(passage) for passage in passages][:max_hits]


def _hit(passage: Any) -> WebResult:
    document = passage.get("document", passage) if isinstance(passage, dict) else passage
    if isinstance(document, str):
        document = {"contents": document}
    if not isinstance(document, dict) or not any(isinstance(document.get(name), str) for name in _BODIES):
        raise ToolUnavailable(f"search_r1: expected a passage with {' or '.join(_BODIES)}, got {str(passage)[:200]}")
    text = next(value for name in _BODIES if isinstance(value := document.get(name), str)).strip()
    title = str(document.get("title") or "")
    if not title and "\n" in text:
        title, _, text = text.partition("\n")
    link = next((value for name in _LINKS if isinstance(value := document.get(name), str)), "")
    date = str(document.get("date") or "")
    return WebResult(title=title.strip().strip('"'), link=link, snippet=text.strip(), date=date)
