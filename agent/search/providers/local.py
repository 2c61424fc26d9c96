"""The embedded default: a full-text index on disk or, for a small file, in memory. Needs no network, server or key.

The index is tantivy's; SQLite's FTS5 was slower at questions of several words (benchmarks/local_search.py, docs/results.md).
Words are stemmed as English, accents are folded; scripts without blanks between words, and Korean, are indexed by character.
The same analyser reads pages and questions, so a word is found as it is written, in whatever script.
"""

from __future__ import annotations

import asyncio
import json
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from agent.files import write_whole
from agent.search import Page, WebResult
from agent.search.corpus import Skip, read_corpus
from agent.search.web import WebClient

if TYPE_CHECKING:
    import tantivy

VERSION = 2
_ABOUT = "deepeyes-index.json"
_BY_CHARACTER = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_TOKENS = rf"[{_BY_CHARACTER}]\p{{M}}*|[\p{{L}}\p{{M}}\p{{N}}_&&[^{_BY_CHARACTER}]]+"
_SIGNS = re.compile(
    "[\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u093c\u09bc\u0a3c\u200c\u200d]"
    "|(?<=[\u0370-\u052f])[\u0300-\u0305\u0307-\u036f]+"
)
"""Vowel signs of Hebrew and Arabic, Arabic's stretching sign and hamza, India's nukta, joiners, and accents of Greek and
Cyrillic (but \u0439 is a letter): many texts leave them out. Accents of Latin are folded by the analyser."""
_LETTERS = str.maketrans("\u0629\u0649\u06cc\u06a9\u03c2", "\u0647\u064a\u064a\u0643\u03c3")
"""Forms of one letter that are written for each other in Arabic, Persian and Greek."""
_HALF_WIDTH = re.compile("[\uff65-\uff9f]+")
_TITLE_BOOST = 2.0
_HEAP_BYTES = 128_000_000
"""Of each of the two writing threads together: what a commit may hold back in memory."""


class Settings(BaseModel):
    """`provider: local`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path = Field(exclude=True)
    """An index that `deepeyes search index` made, or a `.jsonl` file of title, text and link, read into memory."""
    corpus: str = ""
    """A name for what is indexed, if searches are recorded: it tells one index from another."""
    snippet_chars: int = Field(300, ge=20, le=5000)
    highlight: str = ""
    """Put before and after each word that was found, such as `**`; the published format has none."""


class Provider:
    """One index, shared by the episodes of a process. Equal questions have equal answers, ties included."""

    def __init__(self, settings: Settings, web: WebClient | None = None) -> None:
        self._settings = settings
        self._index = _open(settings.path)
        self._searcher = self._index.searcher()

    async def search(self, query: str, *, max_hits: int) -> list[WebResult]:
        """Pages that hold any of the words, best match first."""
        return await asyncio.to_thread(self._search, query, max_hits)

    async def open_page(self, link: str) -> Page:
        """The whole text of a page that was found."""
        return await asyncio.to_thread(self._open_page, link)

    def _search(self, query: str, max_hits: int) -> list[WebResult]:
        import tantivy

        analyser, written = _analyser(), unicodedata.normalize("NFC", query)
        words = list(dict.fromkeys([*analyser.analyze(written), *analyser.analyze(_folded(written))]))
        if not words:
            return []
        schema = self._index.schema
        parts = []
        for word in words:
            title = tantivy.Query.boost_query(tantivy.Query.term_query(schema, "title", word), _TITLE_BOOST)
            parts += [title, *(tantivy.Query.term_query(schema, name, word) for name in ("text", "unsigned"))]
        parsed = tantivy.Query.boolean_query([(tantivy.Occur.Should, part) for part in parts])
        snippets = tantivy.SnippetGenerator.create(self._searcher, parsed, self._index.schema, "text")
        snippets.set_max_num_chars(self._settings.snippet_chars)
        results = []
        for _, address in self._searcher.search(parsed, max_hits).hits:
            document: Any = self._searcher.doc(address)
            text = document["text"][0]
            found = snippets.snippet_from_doc(document)
            snippet = _marked(found, self._settings.highlight)
            if not snippet:  # found by its title alone
                snippet = text[: self._settings.snippet_chars]
            elif len(text) <= self._settings.snippet_chars and text.startswith(found.fragment()):
                snippet += text[len(found.fragment()) :]  # tantivy leaves out what stands behind the last word
            results.append(WebResult(title=document["title"][0], link=document["link"][0], snippet=snippet.strip()))
        return results

    def _open_page(self, link: str) -> Page:
        import tantivy

        found = self._searcher.search(tantivy.Query.term_query(self._index.schema, "link", link), 1).hits
        if not found:
            return Page("", "", "there is no page of that link in the index")
        document: Any = self._searcher.doc(found[0][1])
        return Page(document["title"][0], document["text"][0])


def build_index(
    source: Path,
    target: Path,
    *,
    commit_every: int = 100_000,
    on_progress: Callable[[int], None] | None = None,
    skip: Skip | None = None,
) -> int:
    """Build an index, or go on with one that was interrupted; what was committed is not read twice.

    Args:
        source: See `agent.search.corpus.read_corpus`.
        target: A folder; made if need be.
        commit_every: Documents after which an interruption loses nothing.
        on_progress: Called with the number of documents after each commit.
        skip: Told of each page that is left out, with file and line.

    Returns:
        Number of documents.

    Raises:
        ValueError: The folder is something else, or the index of another source.
        CorpusError: The source cannot be read; what came before is kept, and the next call goes on behind it.
    """
    import tantivy  # noqa: F401  before anything is written

    about = {"version": VERSION, "source": source.name, "finished": False}
    known = _about(target)
    if known is None:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ValueError(f"{target} exists and is no index; give another folder")
        # A source that cannot be read leaves no folder.
        next(read_corpus(source, None), None)
        target.mkdir(parents=True, exist_ok=True)
        _write_about(target, about)
    elif known["version"] != VERSION or known["source"] != source.name:
        raise ValueError(
            f"{target} is an index of {known['source']} (version {known['version']}); delete it or give another folder"
        )
    index = _make(target)
    writer = index.writer(_HEAP_BYTES, num_threads=2)
    count = index.searcher().num_docs
    try:
        done = count
        for number, document in enumerate(read_corpus(source, skip)):
            if number < done:
                continue
            writer.add_document(_document(document))
            count += 1
            if count % commit_every == 0:
                writer.commit()
                if on_progress is not None:
                    on_progress(count)
    finally:
        writer.commit()
        writer.wait_merging_threads()
    _write_about(target, about | {"finished": True, "documents": count})
    if on_progress is not None:
        on_progress(count)
    return int(count)


def _open(path: Path) -> tantivy.Index:
    if path.is_dir():
        known = _about(path)
        if known is None:
            raise ValueError(f"{path} is no index; make one with `deepeyes search index SOURCE --out {path}`")
        if known["version"] != VERSION:
            raise ValueError(
                f"{path} is an index of version {known['version']}, this code reads version {VERSION}; build it anew"
            )
        if not known["finished"]:
            raise ValueError(f"{path} is not finished; run `deepeyes search index` on {known['source']} again, it goes on")
        return _make(path)
    if not path.exists():
        raise FileNotFoundError(
            f"no search index at {path}; expected JSON lines of title, text and link, or an index made with "
            "`deepeyes search index`"
        )
    if path.suffix == ".sqlite":
        raise ValueError(f"{path} is an index of an older kind; build it anew with `deepeyes search index SOURCE`")
    index = _make(None)
    writer = index.writer(15_000_000, num_threads=1)
    for document in read_corpus(path):
        writer.add_document(_document(document))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    return index


def _make(path: Path | None) -> tantivy.Index:
    try:
        import tantivy
    except ImportError as error:
        raise ValueError("provider local needs the package tantivy: pip install 'deepeyes[search]'") from error
    schema = tantivy.SchemaBuilder()
    schema.add_text_field("title", stored=True, tokenizer_name="words")
    schema.add_text_field("text", stored=True, tokenizer_name="words")
    schema.add_text_field("unsigned", stored=False, tokenizer_name="words")
    schema.add_text_field("link", stored=True, tokenizer_name="raw")
    index = tantivy.Index(schema.build(), path=None if path is None else str(path))
    index.register_tokenizer("words", _analyser())
    return index


def _analyser() -> tantivy.TextAnalyzer:
    import tantivy

    words = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(_TOKENS))
    # Folded before they are made small: a small dotted I would be two characters.
    for kind in (tantivy.Filter.ascii_fold(), tantivy.Filter.lowercase(), tantivy.Filter.stemmer("english")):
        words = words.filter(kind)
    return words.build()


def _folded(text: str) -> str:
    """Text as people write it who leave signs and accents out, with one form of each letter."""
    text = _HALF_WIDTH.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    apart = _SIGNS.sub("", unicodedata.normalize("NFD", text))
    return unicodedata.normalize("NFC", apart.translate(_LETTERS))


def _document(document: WebResult) -> tantivy.Document:
    import tantivy

    title, text = (unicodedata.normalize("NFC", part) for part in (document.title, document.snippet))
    whole = f"{title}\n{text}"
    folded = "" if whole.isascii() else _folded(whole)
    return tantivy.Document(title=title, text=text, link=document.link, unsigned="" if folded == whole else folded)


def _marked(snippet: tantivy.Snippet, mark: str) -> str:
    """The snippet with its found words marked; tantivy counts in bytes."""
    fragment = snippet.fragment().encode()
    if not mark:
        return str(fragment.decode())
    parts, end = [], 0
    for found in snippet.highlighted():
        if found.start < end:
            continue
        parts += [fragment[end : found.start].decode(), mark, fragment[found.start : found.end].decode(), mark]
        end = found.end
    return "".join([*parts, fragment[end:].decode()])


def _about(path: Path) -> dict[str, Any] | None:
    try:
        about: dict[str, Any] = json.loads((path / _ABOUT).read_text(encoding="utf-8"))
        return about
    except (OSError, ValueError):
        return None


def _write_about(path: Path, about: dict[str, Any]) -> None:
    write_whole(path / _ABOUT, json.dumps(about))
