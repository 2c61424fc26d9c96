"""Exact sums of square roots, such as 1/2 + 3 sqrt(2), in which most closed formulas can be compared without rounding."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import gcd, isqrt

_MAX_TERMS = 16
_MAX_BITS = 1 << 16
_MAX_PRIME = 10**4
"""A radicand is divided by squares of primes up to here; a larger rest must be a square or below the square of it."""

Terms = Mapping[int, Fraction]
"""Square-free radicand -> factor, without zeros: {1: 1/2, 2: 3} is 1/2 + 3 sqrt(2)."""


class NoValue(Exception):
    """It has none, or none that may be computed here."""


class NotExact(NoValue):
    """It is no sum of square roots of rational numbers."""


def whole(value: Fraction | int) -> Terms:
    """A rational number."""
    return {1: Fraction(value)} if value else {}


def as_fraction(terms: Terms) -> Fraction:
    """The rational number that it is.

    Raises:
        NotExact: It holds a root.
    """
    if not terms:
        return Fraction(0)
    if len(terms) > 1 or 1 not in terms:
        raise NotExact
    return terms[1]


def _checked(terms: dict[int, Fraction]) -> Terms:
    found = {radicand: factor for radicand, factor in terms.items() if factor}
    if len(found) > _MAX_TERMS:
        raise NoValue
    for factor in found.values():
        if max(factor.numerator.bit_length(), factor.denominator.bit_length()) > _MAX_BITS:
            raise NoValue
    return found


def add(one: Terms, two: Terms) -> Terms:
    """The sum."""
    total = dict(one)
    for radicand, factor in two.items():
        total[radicand] = total.get(radicand, Fraction(0)) + factor
    return _checked(total)


def negative(of: Terms) -> Terms:
    """The same with the other sign."""
    return {radicand: -factor for radicand, factor in of.items()}


def multiply(one: Terms, two: Terms) -> Terms:
    """The product: sqrt(6) sqrt(10) is 2 sqrt(15)."""
    total: dict[int, Fraction] = {}
    for a, factor_a in one.items():
        for b, factor_b in two.items():
            common = gcd(a, b)
            radicand = (a // common) * (b // common)
            total[radicand] = total.get(radicand, Fraction(0)) + factor_a * factor_b * common
    return _checked(total)


def inverse(of: Terms) -> Terms:
    """One divided by it: roots leave the denominator one prime after the other.

    Raises:
        NoValue: It is 0.
    """
    if not of:
        raise NoValue
    root = max(of)
    if root == 1:
        return {1: 1 / of[1]}
    prime = _smallest_prime(root)
    without = {radicand: factor for radicand, factor in of.items() if radicand % prime}
    with_it = {radicand // prime: factor for radicand, factor in of.items() if not radicand % prime}
    # 1 / (u + v sqrt(p)) is (u - v sqrt(p)) / (u^2 - p v^2).
    above = add(without, negative(multiply(with_it, {prime: Fraction(1)})))
    below = add(multiply(without, without), negative(multiply(multiply(with_it, with_it), whole(prime))))
    return multiply(above, inverse(below))


def _smallest_prime(number: int) -> int:
    prime = 2
    while prime * prime <= number:
        if number % prime == 0:
            return prime
        prime += 1
        if prime > _MAX_PRIME:
            raise NotExact
    return number


def power(base: Terms, exponent: int) -> Terms:
    """A whole power.

    Raises:
        NoValue: It is too large, or a zero is not to be raised so.
    """
    if not base:
        if exponent <= 0:
            raise NoValue
        return base
    bits = max(max(part.numerator.bit_length(), part.denominator.bit_length()) for part in base.values())
    if abs(exponent) * bits > _MAX_BITS or (len(base) > 1 and abs(exponent) > _MAX_TERMS):
        raise NoValue
    if len(base) == 1:
        ((radicand, factor),) = base.items()
        outside = whole(factor ** abs(exponent) * radicand ** (abs(exponent) // 2))
        result = multiply(outside, {radicand: Fraction(1)}) if exponent % 2 else outside
    else:
        result = whole(1)
        for _ in range(abs(exponent)):
            result = multiply(result, base)
    return inverse(result) if exponent < 0 else result


def square_root(of: Fraction) -> Terms:
    """The root of a rational number.

    Raises:
        NotExact: It is negative, or too large to be factored.
    """
    if of < 0:
        raise NotExact
    outside, inside = _without_squares(of.numerator * of.denominator)
    return {inside: Fraction(outside, of.denominator)} if outside else {}


def _without_squares(number: int) -> tuple[int, int]:
    """(a, b) with a^2 b = number and b square-free."""
    if number == 0:
        return 0, 1
    root = isqrt(number)
    if root * root == number:
        return root, 1
    outside, inside, prime = 1, 1, 2
    while prime * prime <= number:
        if prime > _MAX_PRIME:
            raise NotExact
        times = 0
        while number % prime == 0:
            number //= prime
            times += 1
        outside *= prime ** (times // 2)
        inside *= prime ** (times % 2)
        prime += 1
    return outside, inside * number
