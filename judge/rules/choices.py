"""Multiple choice: one letter, perhaps in brackets, announced, or with the option's text behind it.

An answer that names a second option, negates, or takes something back is for a judge.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

_MAX_CHARS = 160
_MAX_WORDS = 10
_BARE = re.compile(
    r"(?:(?:the )?(?:option|choice) )?(?:\(([A-Z])\)?|\[([A-Z])\]|<([A-Z])>|\{([A-Z])\}|([A-Z])\)?)[.:]?", re.IGNORECASE
)
_GOLD = re.compile(r"[(\[]?([A-Z])[)\]]?[.:)]?")
_WITH_TEXT = re.compile(r"(?:(?:\(([A-Z])\)|\[([A-Z])\]|([A-Z])[.):])[.:]? |([A-Z])、 ?)(?=[^\W_])(.*)")
_OTHER_OPTION = re.compile(r"(?<![A-Za-z'])[A-Z](?![A-Za-z'])")
_ANNOUNCED = ("option", "choice", "the opt", "the cho")
_OPTION_LINE = re.compile(r"^[ \t]*[(\[]?([A-J])[).:\]][ \t]*(\S.*)$", re.MULTILINE)
_MAX_QUESTION_CHARS = 4000
_ARTICLE_FIRST = re.compile(r"A [a-z]{2,}")
_WORDS_THAT_TAKE_BACK = """
no not nor none neither never wait wrong incorrect false right correct true actually instead rather but or and however
although though because since so as if unless except either both all any maybe perhaps possibly probably sorry hmm oops
correction change is are was were be answer option choice guess think sure unsure uncertain unknown than then also too
other another cannot nicht nein kein keine falsch oder ist pas non faux ou est ni falso incorrecto incorrecta mal es
sino sbagliato errato nao não errado не нет неверно или scratch strike nope mistake mistaken error apologies again
cancel ignore disregard unlikely doubt doubtful impossible hardly ruled excluded eliminated invalid untrue kidding
joking could would might may should must only alternatively alternative otherwise versus vs equally depends questionable
likely second thought reconsider revised really seems looks appears possible certain certainly nevermind mind skip pass
here there this that it these those
"""
"""In English and some other languages; with any of them the text behind a letter is for a judge."""
_TAKES_BACK = frozenset(_WORDS_THAT_TAKE_BACK.split())
_TAKES_BACK_CHINESE = re.compile(r"[不非错誤误没否或和是对對]")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def choice_rule(answer: str, gold: str, question: str) -> bool | None:
    """Decide when the gold is one capital letter and the answer names one option and nothing else."""
    found = _GOLD.fullmatch(gold)
    if found is None:
        return None
    given = read_choice(answer)
    if given is None:
        return None
    if given.text:
        options = read_options(question)
        shown = options.get(given.letter)
        if shown is not None and _same_text(shown, given.text):
            return given.letter == found[1]
        if shown is not None or not _only_describes(given.text):
            return None
    # r is no R and g no G, but a lower-case letter may name an option.
    named = (
        given.exact
        or found[1] in "ABCD"
        or (found[1] in "EFGHIJ" and (len(answer) > 1 or found[1] in read_options(question)))
    )
    return given.letter == found[1] if named else None


class Choice(NamedTuple):
    """One option named."""

    letter: str
    """As a capital."""
    exact: bool
    """Whether it was written as one."""
    text: str = ""
    """What stands behind it."""


@functools.lru_cache(8192)
def read_choice(answer: str) -> Choice | None:
    """The option that an answer begins with, or is; None if it does not begin with one."""
    if not answer or len(answer) > _MAX_CHARS:
        return None
    if len(answer) > 1 and answer[:2].isalpha() and not answer[:7].lower().startswith(_ANNOUNCED):
        return None
    bare = _BARE.fullmatch(answer)
    if bare is not None:
        letter = bare[bare.lastindex or 0]
        return Choice(letter.upper(), letter.isupper())
    found = _WITH_TEXT.fullmatch(answer.replace("**", "") if answer.count("**") == 2 else answer)
    return None if found is None else Choice(found[1] or found[2] or found[3] or found[4], True, found[5])


@functools.lru_cache(64)
def read_options(question: str) -> Mapping[str, str]:
    """Options that a question shows, each on a line of its own: letter -> text."""
    return {found[1]: found[2] for found in _OPTION_LINE.finditer(question[-_MAX_QUESTION_CHARS:])}


def _same_text(one: str, two: str) -> bool:
    return one.strip(" .").casefold() == two.strip(" .").casefold()


def _only_describes(text: str) -> bool:
    """Whether the text behind a letter describes one option: it names no other, negates nothing and takes nothing back."""
    rest = _ARTICLE_FIRST.sub("a thing", text, count=1) if _ARTICLE_FIRST.match(text) else text
    if _OTHER_OPTION.search(rest) or _TAKES_BACK_CHINESE.search(text) or re.search(r"[!?;:\\$|/<>=]|\. \S|\.\.", text):
        return False
    words = [word.lower() for word in _WORD.findall(text.replace("’", "'"))]
    return len(words) <= _MAX_WORDS and not any(word in _TAKES_BACK or word.endswith("n't") for word in words)
