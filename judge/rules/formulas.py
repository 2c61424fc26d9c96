"""The grammar of one formula as a whole, in LaTeX or plain text.

What is not in the grammar is no formula here: words, units, ranges, several formulas, dots, primes, integrals, functions of
unknown name, and whatever can be read in two ways, such as `1/2x`, `x2`, `f(x)`, `2^3^4`, `\\log 2`, `4\\sqrt(2)`. A run of
letters is one name.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

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
    "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\epsilon", "θ": r"\theta", "λ": r"\lambda",
    "ρ": r"\rho", "σ": r"\sigma", "φ": r"\phi", "ω": r"\omega", "Δ": r"\Delta", "π": r"\pi",
}  # fmt: skip
_NAMES = r"""
\alpha \beta \gamma \delta \epsilon \varepsilon \zeta \eta \theta \kappa \lambda \mu \nu \xi \rho \sigma \tau
\phi \varphi \chi \psi \omega \Gamma \Delta \Theta \Lambda \Sigma \Phi \Psi \Omega
"""
_GREEK_NAMES = frozenset(_NAMES.split())
_FUNCTIONS = {r"\sin", r"\cos", r"\tan", r"\ln", r"\exp", r"\arcsin", r"\arccos", r"\arctan", r"\sinh", r"\cosh", r"\tanh"}
_NOT_VARIABLES = """
or no is of to if in as at by an on so and not the for but mod gcd lcm lim max min sup inf sin cos tan cot sec csc log
exp det deg arg ln lg cm mm km kg mg ml ms ft yd mi lb oz hz
"""
_NO_NAMES = frozenset(_NOT_VARIABLES.split())
"""Words, functions and units that look like a product of variables."""
_TIMES = {"*", "×", "·", "\\cdot", "\\times"}
_FRACTIONS = {"\\frac", "\\dfrac", "\\tfrac", "\\cfrac"}
_CROSSES = {"×", "\\times"}
_OVER = {"/", "÷", "\\div"}
_RELATIONS = {
    "=": "=", "<": "<", ">": ">", "≤": "<=", "≥": ">=", "≠": "!=", "\\le": "<=", "\\leq": "<=", "\\leqslant": "<=",
    "\\ge": ">=", "\\geq": ">=", "\\geqslant": ">=", "\\ne": "!=", "\\neq": "!=", "\\lt": "<", "\\gt": ">",
}  # fmt: skip
_FUNCTION_NAMES = frozenset("fghuvyFGHPEV")
"""A letter of which the bracket behind it may be an argument, whatever stands in it."""

Tree = tuple[Any, ...]
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
    if text[0] == "~":
        return None  # about
    if any(mark in _CROSSES for _, mark in tokens) and any(kind == "name" for kind, _ in tokens):
        return None  # a product of vectors, or a size
    sure = any(kind in ("name", "command") and mark not in _TIMES | _OVER for kind, mark in tokens)
    return Formula(left, relation, right, sure or any(mark in ("^", "!", "√") for _, mark in tokens))


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
        if kind == "name" and found[0].lower() in _NO_NAMES:
            raise NotAFormula
        if kind != "space":
            tokens.append((kind, found[0]))
        elif (
            tokens
            and place < len(text)
            and tokens[-1][0] in ("number", "name")
            and (text[place].isalnum() or text[place] == ".")
        ):
            raise NotAFormula  # words, or numbers one after the other
    return tokens


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._place = 0

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._place] if self._place < len(self._tokens) else ("end", "")

    def _take(self) -> tuple[str, str]:
        mark = self._peek()
        self._place += 1
        return mark

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
            kind, mark = self._peek()
            if mark in _TIMES or mark in _OVER:
                if divided:
                    raise NotAFormula  # a/b*c and a/b/c
                self._take()
                divided = mark in _OVER
                last = self._power(depth)
                if divided and last[0] == "name" and len(last[1].partition("_")[0]) > 1 and last[1][0] != "\\":
                    raise NotAFormula  # 1/xy
                tree = ("div" if divided else "mul", tree, last)
            elif kind in ("name", "number") or mark in ("(", "√") or (kind == "command" and mark not in _RELATIONS):
                if divided or kind == "number" or (mark == "(" and not self._multiplies_bracket(last)):
                    raise NotAFormula  # 1/2x, x2, f(x)
                mixed = self._tokens[self._place - 1][0] == "number" and mark in _FRACTIONS
                last = self._power(depth)
                if mixed and last[0] == "div" and last[1][0] == last[2][0] == "number":
                    raise NotAFormula  # three and a half, or three times a half
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
        for _, mark in self._tokens[self._place :]:
            level += (mark == "(") - (mark == ")")
            if mark == last[1]:
                return True
            if level == 0:
                return False
        return False

    def _power(self, depth: int) -> Tree:
        tree = self._atom(depth)
        behind = self._peek()[1]
        long_name = tree[0] == "name" and len(tree[1]) > 1 and tree[1].isalpha()
        if behind in ("^", "!") and (long_name or self._is_fraction_without_brackets(tree)):
            raise NotAFormula  # xy^2, \\frac{1}{2}^2
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

    def _is_fraction_without_brackets(self, tree: Tree) -> bool:
        return tree[0] == "div" and self._tokens[self._place - 1][1] != ")"

    def _exponent(self, depth: int) -> Tree:
        kind, mark = self._peek()
        if mark == "{":
            return self._group(depth)
        if mark == "(":
            return self._bracket(depth)
        if mark == "-":
            self._take()
            kind, mark = self._peek()
            if kind != "number" or "." in mark:
                raise NotAFormula
            self._take()
            return ("neg", ("number", mark))
        if kind == "number" and "." not in mark:
            self._take()
            behind = self._peek()
            if len(mark) > 1 and behind[0] in ("name", "command") and behind[1] not in _TIMES | _OVER | set(_RELATIONS):
                raise NotAFormula  # x^10y
            if behind[1] == "/" and [kind for kind, _ in self._tokens[self._place + 1 : self._place + 2]] == ["number"]:
                raise NotAFormula  # x^1/2
            return ("number", mark)
        if kind == "name" and len(mark) == 1:
            self._take()
            if self._peek()[0] in ("name", "number"):
                raise NotAFormula
            return ("name", mark)
        if mark == "\\pi":
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
        kind, mark = self._peek()
        if mark == "(":
            return self._bracket(depth)
        if mark == "{":
            return self._group(depth)
        self._take()
        if kind == "number":
            return ("number", mark)
        if kind == "name" or mark in _GREEK_NAMES:
            if len(mark) > 1 and kind == "name" and self._peek()[1] == "_":
                raise NotAFormula  # xy_1
            return ("name", mark + self._index())
        if mark == "\\pi":
            return ("constant", "pi")
        if mark in _FRACTIONS:
            return ("div", self._argument(depth), self._argument(depth))
        if mark in ("\\sqrt", "√"):
            return self._root(depth, plain=mark == "√")
        if mark in ("\\binom", "\\dbinom"):
            return ("binomial", self._group(depth), self._group(depth))
        if mark in _FUNCTIONS:
            return ("call", mark[1:], self._function_argument(depth))
        if mark == "\\log" and self._peek()[1] == "_":
            self._take()
            base = self._group(depth) if self._peek()[1] == "{" else self._digit()
            return ("log", base, self._function_argument(depth))
        raise NotAFormula

    def _index(self) -> str:
        if self._peek()[1] != "_":
            return ""
        self._take()
        kind, mark = self._take()
        if kind in ("number", "name") and len(mark) == 1:
            return "_" + mark
        if mark == "{" and self._peek()[0] in ("number", "name"):
            index = self._take()[1]
            self._expect("}")
            return "_" + index
        raise NotAFormula

    def _argument(self, depth: int) -> Tree:
        """A group, or one digit or letter: \\frac12."""
        kind, mark = self._peek()
        if mark == "{":
            return self._group(depth)
        if kind == "number" and mark.isdigit():
            return self._digit()
        raise NotAFormula

    def _digit(self) -> Tree:
        """One digit of a number of which the rest stays: \\frac12 is a half."""
        kind, mark = self._take()
        if kind != "number" or not mark.isdigit():
            raise NotAFormula
        if len(mark) > 1:
            self._place -= 1
            self._tokens[self._place] = ("number", mark[1:])
        return ("number", mark[0])

    def _root(self, depth: int, *, plain: bool) -> Tree:
        if plain:
            kind, mark = self._peek()
            if mark == "(":
                return ("root", ("number", "2"), self._bracket(depth))
            self._take()
            if kind != "number":
                raise NotAFormula
            if self._peek()[0] in ("name", "command") or self._peek()[1] in ("/", "^", "!"):
                raise NotAFormula  # √2x, √1/4
            return ("root", ("number", "2"), ("number", mark))
        degree: Tree = ("number", "2")
        if self._peek()[1] == "[":
            self._take()
            kind, mark = self._take()
            if kind != "number" or not mark.isdigit():
                raise NotAFormula
            degree = ("number", mark)
            self._expect("]")
        braces = self._peek()[1] == "{"
        tree: Tree = ("root", degree, self._argument(depth))
        if not braces and self._peek()[1] in ("/", "^", "!"):
            raise NotAFormula  # \\sqrt 1/4
        return tree

    def _function_argument(self, depth: int) -> Tree:
        """What stands in brackets, or one name or number with nothing behind it that may belong to it: \\sin 2x has two."""
        mark = self._peek()[1]
        if mark == "(":
            argument = self._bracket(depth)
        elif mark == "{":
            argument = self._group(depth)
        elif self._peek()[0] == "number" or mark == "\\pi" or (self._peek()[0] == "name" and len(mark) == 1):
            argument = self._atom(depth)
            if self._peek()[0] in ("name", "number", "command") or self._peek()[1] in ("(", "^", "!", "/", "√", "{"):
                raise NotAFormula
        else:
            raise NotAFormula
        if self._peek()[1] in ("^", "!"):
            raise NotAFormula
        return argument
