"""The grammar of one formula as a whole, in LaTeX or plain text.

What is not in the grammar is no formula here: words, units, ranges, several formulas, dots, primes, integrals, functions of unknown name,
and whatever can be read in two ways, such as `1/2x`, `x2`, `f(x)`, `2^3^4`, `\\log 2`, `4\\sqrt(2)`. A run of letters is one name.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

MAX_CHARS = 300
_MAX_DEPTH = 24
_TOKEN = re.compile(
    r"(?P<number>[0-9]{1,40}(?:\.[0-9]{1,40})?|\.[0-9]{1,40})|(?P<name>[A-Za-z]{1,3}(?![A-Za-z]))|(?P<command>\\[A-Za-z]+)"
    r"|(?P<sign>[-+*/^_{}()\[\]!=<>×·÷≤≥≠√])|(?P<space> +)"
)
_SPACING = re.compile(r"\\(?:left|right|displaystyle|limits|q?quad)(?![A-Za-z])|\\[,;:! ]|~")
_ROMAN_E = re.compile(r"\\(?:mathrm|rm|text)\{e\}")
_ABOVE = str.maketrans({char: f"^{{{digit}}}" for char, digit in zip("²³⁴⁵⁶⁷⁸⁹", "23456789", strict=True)})
_GREEK = {
    letter: "\\" + name
    for letter, name in zip(
        "αβγδεθλρσφωΔπ", "alpha beta gamma delta epsilon theta lambda rho sigma phi omega Delta pi".split(), strict=True
    )
}
_GREEK_NAMES = frozenset(
    "\\alpha \\beta \\gamma \\delta \\epsilon \\varepsilon \\zeta \\eta \\theta \\kappa \\lambda \\mu \\nu \\xi \\rho \\sigma \\tau \\phi \\varphi "
    "\\chi \\psi \\omega \\Gamma \\Delta \\Theta \\Lambda \\Sigma \\Phi \\Psi \\Omega".split()
)
_FUNCTIONS = frozenset("\\sin \\cos \\tan \\ln \\exp \\arcsin \\arccos \\arctan \\sinh \\cosh \\tanh".split())
_TIMES = {"*", "×", "·", "\\cdot", "\\times"}
_OVER = {"/", "÷", "\\div"}
_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "≤": "<=", "≥": ">=", "≠": "!=", "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=", "\\ge": ">=",
    "\\geq": ">=", "\\geqslant": ">=", "\\ne": "!=", "\\neq": "!=", "\\lt": "<", "\\gt": ">",
}  # fmt: skip
_FUNCTION_NAMES = frozenset("fghuvyFGHPEV")
"""A letter of which the bracket behind it may be an argument, whatever stands in it."""

Tree = tuple  # type: ignore[type-arg]
"""("number", text), ("name", text), ("constant", "pi"), ("call", function, argument), (operator, argument, …)."""


class NotAFormula(Exception):
    """The text is not in the grammar; used within this module only."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A whole text read."""

    left: Tree
    relation: str = ""
    """`=`, `<`, `<=`, `>`, `>=`, `!=`, or nothing for an expression."""
    right: Tree = ()
    sure: bool = True
    """Whether it holds more than digits and signs, of which ranges, scores, dates and sizes are made."""


@functools.lru_cache(4096)
def read_formula(text: str) -> Formula | None:
    """A whole text as one formula; None if it is not."""
    if len(text) > MAX_CHARS or not text:
        return None
    try:
        tokens = _tokens(text)
        parser = _Parser(tokens)
        left = parser.sum(0)
        relation = parser.relation()
        right = parser.sum(0) if relation else ()
        parser.end()
    except NotAFormula:
        return None
    marks = {kind for kind, _ in tokens}
    sure = bool(marks & {"name", "command"}) and any(kind in ("name", "command") and token not in _TIMES | _OVER for kind, token in tokens)
    return Formula(left, relation, right, sure or any(token in ("^", "!", "√") for _, token in tokens))


def _tokens(text: str) -> list[tuple[str, str]]:
    if not text.isascii():
        text = text.translate(_ABOVE)
        for letter, command in _GREEK.items():
            text = text.replace(letter, command + " ")
    if "\\" in text:
        text = _ROMAN_E.sub("e", _SPACING.sub(" ", text))
    tokens: list[tuple[str, str]] = []
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise NotAFormula
        place = found.end()
        kind = found.lastgroup or ""
        if kind != "space":
            tokens.append((kind, found[0]))
        elif tokens and place < len(text) and tokens[-1][0] in ("number", "name") and (text[place].isalnum() or text[place] == "."):
            raise NotAFormula  # words, or numbers one after the other
    return tokens


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._place = 0

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._place] if self._place < len(self._tokens) else ("end", "")

    def _take(self) -> tuple[str, str]:
        token = self._peek()
        self._place += 1
        return token

    def _expect(self, sign: str) -> None:
        if self._take()[1] != sign:
            raise NotAFormula

    def end(self) -> None:
        if self._place != len(self._tokens):
            raise NotAFormula

    def relation(self) -> str:
        found = _RELATIONS.get(self._peek()[1], "")
        if found:
            self._take()
        return found

    def sum(self, depth: int) -> Tree:
        if depth > _MAX_DEPTH:
            raise NotAFormula
        negative = False
        if self._peek()[1] in ("-", "+"):
            negative = self._take()[1] == "-"
        tree = self._product(depth)
        if negative:
            tree = ("neg", tree)
        while self._peek()[1] in ("+", "-"):
            operator = "add" if self._take()[1] == "+" else "sub"
            tree = (operator, tree, self._product(depth))
        return tree

    def _product(self, depth: int) -> Tree:
        tree = last = self._power(depth)
        divided = False
        while True:
            kind, token = self._peek()
            if token in _TIMES or token in _OVER:
                if divided:
                    raise NotAFormula  # a/b*c and a/b/c
                self._take()
                divided = token in _OVER
                last = self._power(depth)
                if divided and last[0] == "name" and len(last[1].partition("_")[0]) > 1 and last[1][0] != "\\":
                    raise NotAFormula  # 1/xy
                tree = ("div" if divided else "mul", tree, last)
            elif kind in ("name", "number") or token in ("(", "√") or (kind == "command" and token not in _RELATIONS):
                if divided or kind == "number" or (token == "(" and not self._multiplies_bracket(last)):
                    raise NotAFormula  # 1/2x, x2, f(x)
                last = self._power(depth)
                tree = ("mul", tree, last)
            else:
                return tree

    def _multiplies_bracket(self, last: Tree) -> bool:
        """Whether a bracket behind this factor is another factor, and not the argument of a function."""
        if last[0] == "pow":
            return last[1][0] != "name" or last[1][1][0] not in _FUNCTION_NAMES | {"\\"}
        if last[0] != "name":
            return True
        if last[1] in _FUNCTION_NAMES or len(last[1]) > 1:
            return False
        # n(n+1) is a product; x(2t) may be a position.
        level = 0
        for _, token in self._tokens[self._place :]:
            level += (token == "(") - (token == ")")
            if token == last[1]:
                return True
            if level == 0:
                return False
        return False

    def _power(self, depth: int) -> Tree:
        tree = self._atom(depth)
        if tree[0] == "name" and len(tree[1]) > 1 and tree[1].isalpha() and self._peek()[1] in ("^", "!"):
            raise NotAFormula  # xy^2
        if self._peek()[1] == "^":
            self._take()
            tree = ("pow", tree, self._exponent(depth))
            if self._peek()[1] in ("^", "!"):
                raise NotAFormula
        elif self._peek()[1] == "!":
            self._take()
            tree = ("factorial", tree)
            if self._peek()[1] in ("!", "^", "="):
                raise NotAFormula  # a double factorial; a != b
        return tree

    def _exponent(self, depth: int) -> Tree:
        kind, token = self._peek()
        if token == "{":
            return self._group(depth)
        if token == "(":
            return self._bracket(depth)
        if token == "-":
            self._take()
            kind, token = self._peek()
            if kind != "number" or "." in token:
                raise NotAFormula
            self._take()
            return ("neg", ("number", token))
        if kind == "number" and "." not in token:
            self._take()
            if len(token) > 1 and self._peek()[0] in ("name", "command") and self._peek()[1] not in _TIMES | _OVER | set(_RELATIONS):
                raise NotAFormula  # x^10y
            return ("number", token)
        if kind == "name" and len(token) == 1:
            self._take()
            if self._peek()[0] in ("name", "number"):
                raise NotAFormula
            return ("name", token)
        if token == "\\pi":
            self._take()
            return ("constant", "pi")
        raise NotAFormula

    def _group(self, depth: int) -> Tree:
        self._expect("{")
        tree = self.sum(depth + 1)
        self._expect("}")
        return tree

    def _bracket(self, depth: int) -> Tree:
        self._expect("(")
        tree = self.sum(depth + 1)
        self._expect(")")
        return tree

    def _atom(self, depth: int) -> Tree:
        kind, token = self._peek()
        if token == "(":
            return self._bracket(depth)
        if token == "{":
            return self._group(depth)
        self._take()
        if kind == "number":
            return ("number", token)
        if kind == "name" or token in _GREEK_NAMES:
            if len(token) > 1 and kind == "name" and self._peek()[1] == "_":
                raise NotAFormula  # xy_1
            return ("name", token + self._index())
        if token == "\\pi":
            return ("constant", "pi")
        if token in ("\\frac", "\\dfrac", "\\tfrac", "\\cfrac"):
            return ("div", self._argument(depth), self._argument(depth))
        if token in ("\\sqrt", "√"):
            return self._root(depth, plain=token == "√")
        if token in ("\\binom", "\\dbinom"):
            return ("binomial", self._group(depth), self._group(depth))
        if token in _FUNCTIONS:
            return ("call", token[1:], self._function_argument(depth))
        if token == "\\log" and self._peek()[1] == "_":
            self._take()
            base = self._group(depth) if self._peek()[1] == "{" else self._digit()
            return ("log", base, self._function_argument(depth))
        raise NotAFormula

    def _index(self) -> str:
        if self._peek()[1] != "_":
            return ""
        self._take()
        kind, token = self._take()
        if kind in ("number", "name") and len(token) == 1:
            return "_" + token
        if token == "{" and self._peek()[0] in ("number", "name"):
            index = self._take()[1]
            self._expect("}")
            return "_" + index
        raise NotAFormula

    def _argument(self, depth: int) -> Tree:
        """A group, or one digit or letter: \\frac12."""
        kind, token = self._peek()
        if token == "{":
            return self._group(depth)
        if kind == "number" and token.isdigit():
            return self._digit()
        raise NotAFormula

    def _digit(self) -> Tree:
        """One digit of a number of which the rest stays: \\frac12 is a half."""
        kind, token = self._take()
        if kind != "number" or not token.isdigit():
            raise NotAFormula
        if len(token) > 1:
            self._place -= 1
            self._tokens[self._place] = ("number", token[1:])
        return ("number", token[0])

    def _root(self, depth: int, *, plain: bool) -> Tree:
        if plain:
            kind, token = self._peek()
            if token == "(":
                return ("root", ("number", "2"), self._bracket(depth))
            self._take()
            if kind != "number":
                raise NotAFormula
            return ("root", ("number", "2"), ("number", token))
        degree: Tree = ("number", "2")
        if self._peek()[1] == "[":
            self._take()
            kind, token = self._take()
            if kind != "number" or not token.isdigit():
                raise NotAFormula
            degree = ("number", token)
            self._expect("]")
        return ("root", degree, self._argument(depth))

    def _function_argument(self, depth: int) -> Tree:
        """In brackets, or one name or number with nothing behind it that may belong to it: \\sin 2x has two readings."""
        token = self._peek()[1]
        if token == "(":
            argument = self._bracket(depth)
        elif token == "{":
            argument = self._group(depth)
        elif self._peek()[0] == "number" or token == "\\pi" or (self._peek()[0] == "name" and len(token) == 1):
            argument = self._atom(depth)
            if self._peek()[0] in ("name", "number", "command") or self._peek()[1] in ("(", "^", "!", "/", "√", "{"):
                raise NotAFormula
        else:
            raise NotAFormula
        if self._peek()[1] in ("^", "!"):
            raise NotAFormula
        return argument
