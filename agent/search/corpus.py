"""Reading what a local index is built from, one document at a time."""

from __future__ import annotations

import bz2
import gzip
import html
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast
from urllib.parse import quote
from xml.etree import ElementTree

from agent.search import WebResult

Document = WebResult
"""Title, link, and the whole text in place of a snippet."""
_HEADING = re.compile(r"^(#{1,2})\s+(.+?)\s*#*\s*$")
_FENCE = re.compile(r"^\s*(```|~~~)")


class CorpusError(ValueError):
    """What cannot be indexed; the message names file and line."""


def read_corpus(source: Path) -> Iterator[Document]:
    """Read JSON lines (`.jsonl`), Markdown (`.md`) or a MediaWiki dump (`.xml`), plain, `.gz` or `.bz2`; or a folder.

    The order is the same every time: an interrupted build goes on where it stopped.

    Raises:
        FileNotFoundError: Nothing there.
        CorpusError: Nothing readable, or a broken line.
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
        yield from reader(path, root)


def _reader(path: Path) -> Callable[[Path, Path], Iterator[Document]] | None:
    name = path.name.removesuffix(".gz").removesuffix(".bz2")
    return _READERS.get(Path(name).suffix)


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path))
    return bz2.open(path) if path.suffix == ".bz2" else path.open("rb")


def _read_lines(path: Path, _: Path) -> Iterator[Document]:
    with _open(path) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                page = json.loads(line)
                title, text = str(page["title"]), str(page["text"])
                # `url` is what WikiExtractor and many dumps write.
                link = str(page.get("link") or page.get("url") or "")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CorpusError(
                    f"{path}:{number} is no page ({error!r}); expected a JSON object with `title`, `text` and, if "
                    "there is one, `link`"
                ) from error
            yield Document(title=title, link=link, snippet=text)


def _read_markdown(path: Path, root: Path) -> Iterator[Document]:
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


def _read_wiki(path: Path, _: Path) -> Iterator[Document]:
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
    if not title or not text or "redirect" in found or ("ns" in found and found["ns"].text != "0"):
        return None
    link = f"{base}/{quote(title.replace(' ', '_'))}" if base else quote(title.replace(" ", "_"))
    return Document(title=title, link=link, snippet=plain_wikitext(text))


def plain_wikitext(text: str) -> str:
    """Readable text of wiki markup; good enough to be found and read, not to be rendered."""
    text = re.sub(r"<!--.*?-->|<ref[^>]*/>|<ref.*?</ref>|<(math|gallery|timeline)\b.*?</\1>", "", text, flags=re.DOTALL)
    for _ in range(6):  # templates and tables, from the inside out
        shorter = re.sub(r"\{\{[^{}]*\}\}|\{\|[^{}]*\|\}", "", text)
        if shorter == text:
            break
        text = shorter
    text = re.sub(r"\[\[(?:File|Image|Category|Datei|Fichier|文件|分类)\s*:(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", "", text)
    text = re.sub(r"\[\[(?:[^|\[\]]*\|)?([^\[\]|]*)\]\]", r"\1", text)
    text = re.sub(r"\[https?://\S+ ([^\]]*)\]", r"\1", text)
    text = re.sub(r"'{2,}|</?[a-zA-Z][^>]*>", "", text)
    text = re.sub(r"^=+\s*(.*?)\s*=+\s*$", r"\1", text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", html.unescape(text)).strip()


_READERS = {".jsonl": _read_lines, ".md": _read_markdown, ".xml": _read_wiki}
