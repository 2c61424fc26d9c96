"""What a formula is worth, at given values of its names: exactly, in square roots, or else to 50 digits. It is bounded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from fractions import Fraction
from math import comb, factorial
from typing import Any

from judge.rules import surds
from judge.rules.formulas import Tree
from judge.rules.surds import NotExact, NoValue, Terms, as_fraction, whole

_MAX_FACTORIAL = 3000
_DIGITS = 50
_PRIME = (1 << 31) - 1
_MAX_SPREAD_BITS = 100
"""Between the largest and the smallest part of a formula, 30 digits: what is smaller yet would not be seen in the sum."""
_HALF = Fraction(1, 2)


def names(tree: Tree) -> set[str]:
    """The names of the variables in it."""
    if not tree or tree[0] in ("number", "constant"):
        return set()
    if tree[0] == "name":
        return {tree[1]}
    return set().union(*(names(part) for part in tree[1:] if isinstance(part, tuple)))


def is_rational(tree: Tree) -> bool:
    """Whether it holds no constant and no function, so that two different exact values are different numbers."""
    return tree[0] not in ("constant", "call", "log") and all(
        is_rational(part) for part in tree[1:] if isinstance(part, tuple)
    )


def exact(tree: Tree, values: Mapping[str, Fraction]) -> Terms:
    """The exact value. Pi and functions count as unknowns, the same for the same argument: what is equal so is equal.

    Raises:
        NotExact: It holds a root that cannot be compared exactly.
        NoValue: It divides by nothing, or is too large.
    """
    kind = tree[0]
    if kind == "number":
        return whole(Fraction(tree[1]))
    if kind == "name":
        return whole(values[tree[1]])
    if kind == "constant":
        return whole(_unknown(tree[1]))
    parts = [exact(part, values) for part in tree[1:] if isinstance(part, tuple)]
    if kind in ("call", "log"):
        return whole(_unknown(f"{tree[1] if kind == 'call' else 'log'}{[sorted(part.items()) for part in parts]}"))
    if kind == "root":
        return _root(int(as_fraction(parts[0])), as_fraction(parts[1]))
    return _combine_exactly(kind, parts)


def _combine_exactly(kind: str, parts: list[Terms]) -> Terms:
    if kind == "neg":
        return surds.negative(parts[0])
    if kind == "add":
        return surds.add(*parts)
    if kind == "sub":
        return surds.add(parts[0], surds.negative(parts[1]))
    if kind == "mul":
        return surds.multiply(*parts)
    if kind == "div":
        return surds.multiply(parts[0], surds.inverse(parts[1]))
    if kind == "pow":
        exponent = as_fraction(parts[1])
        if exponent == _HALF:
            return _root(2, as_fraction(parts[0]))
        if exponent.denominator != 1:
            raise NotExact
        return surds.power(parts[0], int(exponent))
    numbers = [as_fraction(part) for part in parts]
    if any(number.denominator != 1 or not 0 <= number <= _MAX_FACTORIAL for number in numbers):
        raise NoValue
    return whole(factorial(int(numbers[0])) if kind == "factorial" else comb(int(numbers[0]), int(numbers[1])))


def _root(degree: int, of: Fraction) -> Terms:
    if degree == 2:
        return surds.square_root(of)
    if not 3 <= degree <= 20 or of < 0:
        raise NotExact
    return whole(Fraction(*(_whole_root(part, degree) for part in (of.numerator, of.denominator))))


def _whole_root(number: int, degree: int) -> int:
    low, high = 0, 1 << (number.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**degree <= number:
            low = middle
        else:
            high = middle - 1
    if low**degree != number:
        raise NotExact
    return low


def _unknown(seed: str) -> Fraction:
    """A number between 0.1 and 2.1 that nobody foresees without trying."""
    drawn = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    return Fraction(drawn % (2 * _PRIME), _PRIME) + Fraction(1, 10)


def points(names_of: set[str], seed: str, count: int) -> list[dict[str, Fraction]]:
    """Values for the names; every second time some are negative."""
    found: list[dict[str, Fraction]] = []
    for point in range(count):
        values = {name: _unknown(f"{seed}\0{name}\0{point}") for name in sorted(names_of)}
        found.append({name: -value if point % 2 and value.numerator % 2 else value for name, value in values.items()})
    return found


def number(tree: Tree, values: Mapping[str, Fraction]) -> Any:
    """The value to 50 digits, as mpmath has it; complex where it must be.

    Raises:
        NoValue: It has none, or something in it is so large or small beside the rest that 40 digits may not show it.
    """
    import mpmath

    with mpmath.workdps(_DIGITS):
        try:
            sizes: list[int] = []
            found = _evaluate(tree, values, mpmath, sizes)
        except (ZeroDivisionError, ValueError, OverflowError, TypeError, mpmath.libmp.NoConvergence) as error:
            raise NoValue from error
    if sizes and max(sizes) - min(sizes) > _MAX_SPREAD_BITS:
        raise NoValue
    return found


def _evaluate(tree: Tree, values: Mapping[str, Fraction], mp: Any, sizes: list[int]) -> Any:
    """Append the binary size of every part that is not 0 to `sizes`."""
    kind = tree[0]
    if kind == "number":
        found = mp.mpf(tree[1])
    elif kind == "name":
        found = mp.mpf(values[tree[1]].numerator) / values[tree[1]].denominator
    elif kind == "constant":
        found = +mp.pi
    elif kind == "call":
        found = _called(tree[1], _evaluate(tree[2], values, mp, sizes), mp)
    else:
        found = _combined(kind, [_evaluate(part, values, mp, sizes) for part in tree[1:]], mp)
    if not mp.isfinite(found):
        raise NoValue
    if found != 0:
        sizes.append(int(mp.mag(found)))
        if abs(sizes[-1]) > _MAX_SPREAD_BITS:
            raise NoValue
    return found


def _called(function: str, argument: Any, mp: Any) -> Any:
    if abs(argument) > _MAX_SPREAD_BITS:
        raise NoValue
    names_there = {"ln": "log", "arcsin": "asin", "arccos": "acos", "arctan": "atan"}
    return getattr(mp, names_there.get(function, function))(argument)


def _combined(kind: str, parts: list[Any], mp: Any) -> Any:
    if kind == "neg":
        return -parts[0]
    if kind in ("add", "sub", "mul", "div"):
        one, two = parts
        return {"add": mp.fadd, "sub": mp.fsub, "mul": mp.fmul, "div": mp.fdiv}[kind](one, two)
    if kind == "pow":
        base, exponent = parts
        if base == 0 or abs(exponent) * abs(mp.mag(base)) > _MAX_SPREAD_BITS:
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
