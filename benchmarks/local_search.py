"""The local index against SQLite's FTS5: building, size, and questions, on the same documents in one run.

    python -m benchmarks.local_search --documents 1000000

Documents are 60 words drawn from 200,000 by Zipf's law (the n-th word has a weight of 1/n), which is what makes
questions hard: common words are in many documents. A question is 2 to 8 words drawn the same way (`any words`), or 2 to
4 rare ones (`rare words`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from agent.search.providers import local

_VOCABULARY = 200_000
_WORDS = 60
_FTS_SCHEMA = "CREATE VIRTUAL TABLE pages USING fts5(title, text, link UNINDEXED, tokenize='porter unicode61')"
_FTS_QUERY = """
SELECT title, link, snippet(pages, 1, '', '', ' … ', 48) FROM pages WHERE pages MATCH ? ORDER BY bm25(pages, 2.0, 1.0)
LIMIT 5
"""


class _Text:
    """Words by Zipf's law, the same for the same seed."""

    def __init__(self) -> None:
        letters = "etaoinshrdlucmfwypvbgkjq"
        self._words = np.array(
            ["".join(letters[(n // 24**k) % 24] for k in range(4)) + letters[n % 7] for n in range(_VOCABULARY)]
        )
        weights = 1 / np.arange(1, _VOCABULARY + 1)
        self._cumulated = np.cumsum(weights / weights.sum())

    def draw(self, rng: np.random.Generator, count: int, *, rarest: float = 1.0) -> list[str]:
        """`rarest` below 1 leaves out the most common words."""
        low = 0.0 if rarest == 1.0 else 1.0 - rarest
        found = np.searchsorted(self._cumulated, low + rng.random(count) * (1 - low))
        return [str(word) for word in self._words[np.minimum(found, _VOCABULARY - 1)]]

    def documents(self, count: int) -> Iterator[dict[str, str]]:
        rng = np.random.default_rng(0)
        for number in range(count):
            words = self.draw(rng, _WORDS)
            yield {"title": " ".join(words[:4]), "text": " ".join(words[4:]), "link": f"doc:{number}"}


def _percentiles(ask: Callable[[str], object], questions: list[str]) -> tuple[float, float, float]:
    """(p50, p95, largest) in ms."""
    for question in questions[:5]:
        ask(question)
    took_ms = []
    for question in questions:
        started = time.perf_counter()
        ask(question)
        took_ms.append((time.perf_counter() - started) * 1e3)
    cuts = statistics.quantiles(took_ms, n=20)
    return statistics.median(took_ms), cuts[18], max(took_ms)


def _report(name: str, documents: int, build_s: float, size_mb: float, rows: dict[str, tuple[float, float, float]]) -> None:
    print(f"{name:14} built in {build_s:6.1f} s, {documents / build_s:9,.0f} documents/s, {size_mb:7,.0f} MB")
    for kind, (p50, p95, largest) in rows.items():
        print(f"{'':14} {kind:11} p50 {p50:8.2f} ms   p95 {p95:8.2f} ms   max {largest:8.2f} ms")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--questions", type=int, default=200)
    options = parser.parse_args()
    text = _Text()
    rng = np.random.default_rng(1)
    questions = {
        "any words": [" ".join(text.draw(rng, int(rng.integers(2, 9)))) for _ in range(options.questions)],
        "rare words": [" ".join(text.draw(rng, int(rng.integers(2, 5)), rarest=0.4)) for _ in range(options.questions)],
    }
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "documents.jsonl"
        with source.open("w") as file:
            file.writelines(json.dumps(document) + "\n" for document in text.documents(options.documents))
        print(f"{options.documents:,} documents, {source.stat().st_size / 1e6:,.0f} MB of JSON lines")

        started = time.perf_counter()
        local.build_index(source, Path(folder) / "index")
        build_s = time.perf_counter() - started
        size_mb = sum(path.stat().st_size for path in (Path(folder) / "index").iterdir()) / 1e6
        provider = local.Provider(local.Settings(path=Path(folder) / "index"))
        with asyncio.Runner() as runner:
            rows = {
                kind: _percentiles(lambda question: runner.run(provider.search(question, max_hits=5)), asked)
                for kind, asked in questions.items()
            }
        _report("ours (tantivy)", options.documents, build_s, size_mb, rows)

        started = time.perf_counter()
        database = sqlite3.connect(Path(folder) / "fts.sqlite")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(_FTS_SCHEMA)
        with source.open() as file:
            pages = (json.loads(line) for line in file)
            database.executemany("INSERT INTO pages(title, text, link) VALUES (:title, :text, :link)", pages)
        database.commit()
        build_s = time.perf_counter() - started

        def ask(question: str) -> object:
            return database.execute(_FTS_QUERY, (" OR ".join(f'"{word}"' for word in question.split()),)).fetchall()

        rows = {kind: _percentiles(ask, asked[: max(20, len(asked) // 5)]) for kind, asked in questions.items()}
        _report("SQLite FTS5", options.documents, build_s, (Path(folder) / "fts.sqlite").stat().st_size / 1e6, rows)
        database.close()


if __name__ == "__main__":
    main()
