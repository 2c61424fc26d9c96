"""Reading what a local index is built from, one document at a time."""

from __future__ import annotations

import bz2
import gzip
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import quote
from xml.etree import ElementTree

from agent.lines import MOST_VALUES, bounded_lines, too_many_values
from agent.search import WebResult
from agent.search.wikitext import is_redirect, plain_wikitext

_LOG = logging.getLogger(__name__)
Skip = Callable[[str], None]
Document = WebResult
"""Title, link, and the whole text in place of a snippet."""
_HEADING = re.compile(r"^(#{1,2})\s+(.+?)\s*#*\s*$")
_FENCE = re.compile(r"^\s*(```|~~~)")


class CorpusError(ValueError):
    """What cannot be indexed; the message names file and line."""


def read_corpus(source: Path, skip: Skip | None = None) -> Iterator[Document]:
    """Read JSON lines (`.jsonl`), a JSON list (`.json`), Markdown (`.md`), text (`.txt`) or a MediaWiki dump (`.xml`).

    Plain, `.gz` or `.bz2`, or a folder of them.

    The order is the same every time: an interrupted build goes on where it stopped.

    Args:
        source: File or folder.
        skip: Told of each page that cannot be read, with file and line; by default it is a warning in the log.

    Raises:
        FileNotFoundError: Nothing there.
        CorpusError: Nothing readable, or a file that is cut off or damaged as a whole.
    """
    if not source.exists():
        raise FileNotFoundError(f"nothing to index at {source}")
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    readable = [path for path in files if _reader(path)]
    if not readable:
        raise CorpusError(f"nothing to index in {source}; expected {', '.join(_READERS)}, plain or as .gz or .bz2")
    root = source if source.is_dir() else source.parent
    for path in readable:
        reader = _reader(path)
        assert reader is not None
        yield from _whole(path, reader(path, root, skip or _warn))


def _whole(path: Path, documents: Iterator[Document]) -> Iterator[Document]:
    count = 0
    try:
        for document in documents:
            count += 1
            yield document
    except (EOFError, OSError, zlib.error) as error:
        raise CorpusError(
            f"{path} is cut off or damaged behind {count:,} pages ({error}); get it again, and the build goes on from there"
        ) from error


def _warn(what: str) -> None:
    _LOG.warning("left out: %s", what)


def _reader(path: Path) -> Callable[[Path, Path, Skip], Iterator[Document]] | None:
    name = path.name.removesuffix(".gz").removesuffix(".bz2")
    return _READERS.get(Path(name).suffix)


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path))
    return bz2.open(path) if path.suffix == ".bz2" else path.open("rb")


def _read_lines(path: Path, _: Path, skip: Skip) -> Iterator[Document]:
    with _open(path) as lines:
        for number, line in enumerate(bounded_lines(lines), start=1):
            if line.text is None or too_many_values(line.text):
                skip(f"{path}:{number}: {line.problem if line.text is None else f'more than {MOST_VALUES:,} values'}")
                continue
            if not line.text.strip():
                continue
            try:
                page = json.loads(line.text)
            except (ValueError, RecursionError) as error:
                skip(f"{path}:{number} is no JSON: {error}")
                continue
            if (document := _page(page, f"{path}:{number}", skip)) is not None:
                yield document


def _page(page: Any, where: str, skip: Skip) -> Document | None:
    """A page of one of the usual forms: title and text, or all of it in `contents`, its title on the first line.

    The second is that of Search-R1's corpora (PeterJinGo/wiki-18-corpus).
    """
    if not isinstance(page, dict):
        skip(f"{where} is no object: {str(page)[:80]!r}")
        return None
    title, text = _field(page, "title"), _field(page, "text")
    if not text and (contents := _field(page, "contents")):
        first, _, rest = contents.partition("\n")
        title, text = (title or first.strip().strip('"'), rest.strip()) if rest.strip() else (title, contents)
    if not text:
        skip(f"{where} has no text; expected `title` and `text`, or `contents`")
        return None
    # `url` is what WikiExtractor and many dumps write.
    return Document(title=title, link=_field(page, "link") or _field(page, "url") or _field(page, "id"), snippet=text)


def _field(page: dict[str, Any], name: str) -> str:
    """A text, number or list of sentences; NaN, which pandas writes for what is not there, and all else is nothing."""
    value = page.get(name)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = " ".join(part.strip() for part in value)
    if isinstance(value, bool) or value != value or not isinstance(value, str | int | float):
        return ""
    return str(value).encode("utf-8", "replace").decode().strip()  # half a surrogate can be written in JSON, not indexed


def _read_markdown(path: Path, root: Path, _: Skip) -> Iterator[Document]:
    """One document for each first or second level heading."""
    link = quote(path.relative_to(root).as_posix())
    top, title, body, fenced = path.stem, "", list[str](), False

    def section() -> Iterator[Document]:
        text = "\n".join(body).strip()
        if text:
            anchor = "#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") if title else ""
            yield Document(title=f"{top}: {title}" if title else top, link=link + anchor, snippet=text)
        body.clear()

    with _open(path) as lines:
        for line in (raw.decode("utf-8", "replace").rstrip("\r\n") for raw in lines):
            fenced ^= bool(_FENCE.match(line))
            heading = None if fenced else _HEADING.match(line)
            if heading is None:
                body.append(line)
                continue
            yield from section()
            if len(heading[1]) == 1:
                top, title = heading[2], ""
            else:
                title = heading[2]
    yield from section()


def _read_wiki(path: Path, _: Path, __: Skip) -> Iterator[Document]:
    """Articles of a `pages-articles` dump; redirects and other namespaces are left out."""
    base = ""
    with _open(path) as file:
        events = ElementTree.iterparse(file, events=("start", "end"))  # noqa: S314 - a dump its user chose; no entities in it
        try:
            root = next(events)[1]
            for event, element in events:
                name = element.tag.rpartition("}")[2]
                if event == "end" and name == "base":
                    base = (element.text or "").rpartition("/")[0]
                if event != "end" or name != "page":
                    continue
                document = _article(element, base)
                root.clear()  # what was read is let go: a dump is larger than memory
                if document is not None:
                    yield document
        except ElementTree.ParseError as error:
            raise CorpusError(f"{path} is no MediaWiki dump: {error}") from error


def _article(page: ElementTree.Element, base: str) -> Document | None:
    found = {child.tag.rpartition("}")[2]: child for child in page.iter()}
    title = found["title"].text or "" if "title" in found else ""
    text = found["text"].text or "" if "text" in found else ""
    if not title or not text or "redirect" in found or is_redirect(text) or ("ns" in found and found["ns"].text != "0"):
        return None
    link = f"{base}/{quote(title.replace(' ', '_'))}" if base else quote(title.replace(" ", "_"))
    return Document(title=title, link=link, snippet=plain_wikitext(text))


def _read_array(path: Path, _: Path, skip: Skip) -> Iterator[Document]:
    """A `.json` file with a list of pages; it is held in memory while it is read."""
    with _open(path) as file:
        try:
            pages = json.load(file)
        except ValueError as error:
            raise CorpusError(f"{path} is no JSON: {error}") from error
    if not isinstance(pages, list):
        raise CorpusError(f"{path} holds a {type(pages).__name__}; expected a list of pages")
    for number, page in enumerate(pages):
        if (document := _page(page, f"{path}, page {number}", skip)) is not None:
            yield document


def _read_text(path: Path, root: Path, _: Skip) -> Iterator[Document]:
    """A `.txt` file as one page, named as the file is."""
    with _open(path) as file:
        text = file.read().decode("utf-8", "replace").strip()
    if text:
        yield Document(title=path.stem, link=quote(path.relative_to(root).as_posix()), snippet=text)


_READERS = {
    ".jsonl": _read_lines,
    ".json": _read_array,
    ".md": _read_markdown,
    ".txt": _read_text,
    ".xml": _read_wiki,
}
