"""What a formula is worth: exactly where it is rational, else to 50 digits, at given values of its names. Bounded in time and memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fractions import Fraction
from math import comb, factorial
from typing import Any

from judge.rules.formulas import Tree

_MAX_BITS = 1 << 16
_MAX_FACTORIAL = 3000
_DIGITS = 50
_MAX_EXPONENT_BITS = 4000
"""A value with more digits before or behind the point is not computed."""


class NoValue(Exception):
    """It has none, or none that may be computed here."""


class NotRational(NoValue):
    """It needs more than fractions."""


def names(tree: Tree) -> set[str]:
    """Of the variables in it."""
    if not tree or tree[0] in ("number", "constant"):
        return set()
    if tree[0] == "name":
        return {tree[1]}
    return set().union(*(names(part) for part in tree[1:] if isinstance(part, tuple)))


def rational(tree: Tree, values: Mapping[str, Fraction]) -> Fraction:
    """The exact value.

    Raises:
        NotRational: It holds a root, a function or a constant.
        NoValue: It divides by nothing, or is too large.
    """
    kind = tree[0]
    if kind == "number":
        return Fraction(tree[1])
    if kind == "name":
        return values[tree[1]]
    if kind in ("constant", "call", "log"):
        raise NotRational
    if kind == "root":
        return _rational_root(int(tree[1][1]), rational(tree[2], values))
    parts = [rational(part, values) for part in tree[1:]]
    return _small(_apply(kind, parts))


def _apply(kind: str, parts: list[Fraction]) -> Fraction:
    if kind == "neg":
        return -parts[0]
    if kind == "add":
        return parts[0] + parts[1]
    if kind == "sub":
        return parts[0] - parts[1]
    if kind == "mul":
        return parts[0] * parts[1]
    if kind == "div":
        if parts[1] == 0:
            raise NoValue
        return parts[0] / parts[1]
    if kind == "pow":
        return _raised(parts[0], parts[1])
    if any(part.denominator != 1 or not 0 <= part <= _MAX_FACTORIAL for part in parts):
        raise NoValue
    if kind == "factorial":
        return Fraction(factorial(int(parts[0])))
    return Fraction(comb(int(parts[0]), int(parts[1])))


def _raised(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise NotRational
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * bits > _MAX_BITS or (base == 0 and exponent <= 0):
        raise NoValue
    return base ** int(exponent)


def _rational_root(degree: int, of: Fraction) -> Fraction:
    if not 2 <= degree <= 20 or of < 0:
        raise NoValue
    roots = [_whole_root(part, degree) for part in (of.numerator, of.denominator)]
    return Fraction(roots[0], roots[1])


def _whole_root(number: int, degree: int) -> int:
    low, high = 0, 1 << (number.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**degree <= number:
            low = middle
        else:
            high = middle - 1
    if low**degree != number:
        raise NotRational
    return low


def _small(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MAX_BITS:
        raise NoValue
    return value


def number(tree: Tree, values: Mapping[str, Fraction]) -> Any:
    """The value to 50 digits, as mpmath has it; complex where it must be.

    Raises:
        NoValue: It has none, or is too large or too small.
    """
    import mpmath

    with mpmath.workdps(_DIGITS):
        try:
            return _evaluate(tree, values, mpmath)
        except (ZeroDivisionError, ValueError, OverflowError, TypeError, mpmath.libmp.NoConvergence) as error:
            raise NoValue from error


def _evaluate(tree: Tree, values: Mapping[str, Fraction], mp: Any) -> Any:
    kind = tree[0]
    if kind == "number":
        found = mp.mpf(tree[1])
    elif kind == "name":
        found = mp.mpf(values[tree[1]].numerator) / values[tree[1]].denominator
    elif kind == "constant":
        found = +mp.pi
    elif kind == "call":
        found = _called(tree[1], _evaluate(tree[2], values, mp), mp)
    else:
        parts = [_evaluate(part, values, mp) for part in tree[1:]]
        found = _combined(kind, parts, mp)
    size = abs(found)
    if not mp.isfinite(found) or (size != 0 and abs(mp.mag(size)) > _MAX_EXPONENT_BITS):
        raise NoValue
    return found


def _called(function: str, argument: Any, mp: Any) -> Any:
    if abs(argument) > _MAX_EXPONENT_BITS:
        raise NoValue
    names_there = {"ln": "log", "arcsin": "asin", "arccos": "acos", "arctan": "atan"}
    return getattr(mp, names_there.get(function, function))(argument)


def _combined(kind: str, parts: list[Any], mp: Any) -> Any:
    if kind == "neg":
        return -parts[0]
    if kind in ("add", "sub", "mul", "div"):
        one, two = parts
        return {"add": lambda: one + two, "sub": lambda: one - two, "mul": lambda: one * two, "div": lambda: one / two}[kind]()
    if kind == "pow":
        base, exponent = parts
        if base == 0 or abs(exponent) * abs(mp.mag(base)) > _MAX_EXPONENT_BITS:
            raise NoValue
        return mp.power(base, exponent)
    if kind == "root":
        if mp.im(parts[1]) == 0 and parts[1] < 0:
            raise NoValue
        return mp.root(parts[1], int(parts[0]))
    if kind == "log":
        return mp.log(parts[1]) / mp.log(parts[0])
    if any(part != int(part) or not 0 <= part <= _MAX_FACTORIAL for part in parts):
        raise NoValue
    return mp.mpf(factorial(int(parts[0]))) if kind == "factorial" else mp.mpf(comb(int(parts[0]), int(parts[1])))


def points(names_of: set[str], seed: str, count: int) -> list[dict[str, Fraction]]:
    """Values for the names, positive and negative, which whoever wrote the formula could not foresee without trying."""
    found: list[dict[str, Fraction]] = []
    for point in range(count):
        values = {}
        for name in sorted(names_of):
            drawn = int.from_bytes(hashlib.sha256(f"{seed}\0{name}\0{point}".encode()).digest()[:4])
            values[name] = Fraction((drawn % 1999) + 101, 1009) * (-1 if point % 2 and drawn & 1 << 30 else 1)
        found.append(values)
    return found
