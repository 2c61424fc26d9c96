"""Code in the colours of a reader's editor, as words with their class: a page makes elements of them, and never markup."""

from __future__ import annotations

from collections.abc import Iterator

from pygments.lexers import PythonLexer
from pygments.token import STANDARD_TYPES

MOST_COLOURED_CHARS = 100_000
"""Of code, which takes half a second; more is shown without colours."""


def coloured(code: str) -> Iterator[tuple[str, str]]:
    """(class, text) of the code's words, in order: equal neighbours together, the short class names of Pygments."""
    last, text = "", ""
    for kind, word in PythonLexer(stripnl=False, ensurenl=False).get_tokens(code):
        while kind not in STANDARD_TYPES:
            kind = kind.parent
        if STANDARD_TYPES[kind] != last and text:
            yield last, text
            text = ""
        last, text = STANDARD_TYPES[kind], text + word
    if text:
        yield last, text
