"""Formulas: equal if their exact values are, or if they agree to 40 digits wherever tried and math-verify proves it.

Only a text that is one formula as a whole comes here (judge/rules/formulas.py). Our own arithmetic compares fractions,
powers and square roots. Other roots and functions reach math-verify too, as our grammar read them, so that nothing can be
read in part, rounded or dropped there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from judge import maths
from judge.rules.formulas import Formula, Tree, read_formula
from judge.rules.numbers import Number, is_padded
from judge.rules.quantities import Quantity, read_quantity
from judge.rules.surds import NotExact, NoValue, as_fraction
from judge.rules.values import exact, is_rational, names, number, points

_POINTS = 4
_EQUAL_FRAC, _DIFFERENT_FRAC = 1e-40, 2e-3
"""Between them may lie an approximation, such as 3.14 for pi."""
_CONSTANT_NAMES = frozenset({"e", "i"})
_MATHS_CHARS = frozenset("\\^_!√²³⁴⁵⁶⁷⁸⁹=+*<>≤≥≠αβγδεθλρσφωΔπ")
_PROOF_S = 0.5
_LETTERS = "xyzabcmnpqrstuvwkl"

Prover = Callable[[str, str], bool | None]
"""Whether two texts of LaTeX are equal (gold, answer)."""


class Proofs:
    """math-verify for one verdict: once it was slow it is asked no more, so that many golds do not add up."""

    def __init__(self) -> None:
        self._spent_s = 0.0

    def __call__(self, gold: str, answer: str) -> bool:
        """Whether it proves both equal in the time that is left."""
        if self._spent_s > _PROOF_S:
            return False
        started = time.monotonic()
        proven = maths.shared().equal(gold, answer)
        self._spent_s += time.monotonic() - started
        return proven is True


def may_be_formula(text: str) -> bool:
    """Whether a text holds a sign of mathematics."""
    return not _MATHS_CHARS.isdisjoint(text)


def maths_rule(answer: str, gold: str, prove: Prover) -> bool | None:
    """Say yes to what is proven equal, and no to closed values that surely differ."""
    if not (may_be_formula(gold) or may_be_formula(answer)):
        return None
    expected = _side(gold)
    if expected is None:
        return None
    given = _side(answer)
    if given is None:
        return None
    if expected[1] is not None and given[1] is not None:
        return None  # two numbers, of which the number rule was not sure
    one, two = expected[0], given[0]
    if bool(one.relation) == bool(two.relation):
        return _compare(expected, given, prove) if not one.relation else _same_relation(one, two, prove)
    named, other = (one, two) if one.relation else (two, one)
    if named.relation != "=" or not _is_variable(named.left) or named.left[1] in names(named.right) | names(other.left):
        return None
    value = Formula(named.right)
    return _compare((value, None), given, prove) if one.relation else _compare(expected, (value, None), prove)


Side = tuple[Formula, Quantity | None]


def _side(text: str) -> Side | None:
    """A text as a formula; None for what may also be a range, a score, a size, or has a unit."""
    quantity = read_quantity(text)
    if quantity is not None and (quantity.units or is_padded(quantity.number) or _may_be_a_score(quantity.number)):
        return None
    formula = read_formula(text)
    if formula is None:
        return (Formula(("number", "0")), quantity) if quantity is not None and quantity.number.form == "power" else None
    if not formula.sure and (quantity is None or formula.relation):
        return None
    return formula, quantity


def _may_be_a_score(number: Number) -> bool:
    return number.form == "slash" and Fraction(number.value).denominator != number.below


def _is_variable(tree: Tree) -> bool:
    return tree[0] == "name" and len(tree[1].partition("_")[0]) == 1 and tree[1] not in _CONSTANT_NAMES


def _same_relation(gold: Formula, answer: Formula, prove: Prover) -> bool | None:
    """Both sides are equal, each to its own, or crosswise to a relation turned round."""
    turned = {"=": "=", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
    if gold.relation == answer.relation:
        left = _compare_trees(gold.left, answer.left, prove)
        if left:
            right = _compare_trees(gold.right, answer.right, prove)
            return right if right or (gold.relation == "=" and _is_variable(gold.left)) else None
    if gold.relation == turned[answer.relation] and _compare_trees(gold.left, answer.right, prove):
        return True if _compare_trees(gold.right, answer.left, prove) else None
    return None


def _compare(gold: Side, answer: Side, prove: Prover) -> bool | None:
    (one, expected), (two, given) = gold, answer
    trees = [_as_tree(one, expected), _as_tree(two, given)]
    place = max((side.number.last_place for side in (expected, given) if side is not None), default=Fraction(0))
    # 42! may be told with emphasis, and 42² may have a footnote.
    for tree, other in (trees, trees[::-1]):
        if tree[0] in ("factorial", "pow") and tree[1] == other:
            return None
    return _compare_trees(trees[0], trees[1], prove, place)


def _as_tree(formula: Formula, quantity: Quantity | None) -> Tree:
    """A number as the number rule reads it: 3\\frac{1}{2} is three and a half."""
    return formula.left if quantity is None else _tree_of(quantity.number.value)


def _tree_of(value: Fraction | int) -> Tree:
    if value.denominator == 1 and value >= 0:
        return ("number", str(value.numerator))
    tree: Tree = ("div", ("number", str(abs(value.numerator))), ("number", str(value.denominator)))
    return ("neg", tree) if value < 0 else tree


def _compare_trees(gold: Tree, answer: Tree, prove: Prover, place: Fraction | int = 0) -> bool | None:
    if gold == answer:
        return True
    variables = names(gold)
    if variables != names(answer):
        return None  # 0x is 0, but nobody says so
    place = max(place, _last_place(gold), _last_place(answer))
    try:
        return _compare_symbols(gold, answer, variables, prove) if variables else _compare_closed(gold, answer, place, prove)
    except NoValue:
        return None


def _last_place(tree: Tree) -> Fraction:
    """What a one in the last place of a plain number is worth; 0 for other formulas."""
    if tree[0] == "neg":
        return _last_place(tree[1])
    return Fraction(1, 10 ** len(tree[1].partition(".")[2])) if tree[0] == "number" else Fraction(0)


def _compare_closed(gold: Tree, answer: Tree, place: Fraction | int, prove: Prover) -> bool | None:
    try:
        values = exact(gold, {}), exact(answer, {})
    except NotExact:
        pass
    else:
        if values[0] == values[1]:
            return True
        if set(values[0]) | set(values[1]) <= {1} and is_rational(gold) and is_rational(answer):
            return None if abs(as_fraction(values[0]) - as_fraction(values[1])) < place else False
    one, two = number(gold, {}), number(answer, {})
    apart, largest = abs(one - two), max(abs(one), abs(two))
    if largest < _EQUAL_FRAC:
        return None
    if apart <= _EQUAL_FRAC * largest:
        return True if _proven(gold, answer, prove) else None
    if apart < number(_tree_of(place), {}) or apart < _DIFFERENT_FRAC * largest or _may_be_degrees(gold, answer, one, two):
        return None
    return False


def _may_be_degrees(gold: Tree, answer: Tree, one: Any, two: Any) -> bool:
    """An angle in radians on one side and in degrees on the other."""
    if _has_pi(gold) == _has_pi(answer):
        return False
    in_degrees = (one if _has_pi(gold) else two) * 180 / number(("constant", "pi"), {})
    other = two if _has_pi(gold) else one
    return bool(abs(in_degrees - other) < _DIFFERENT_FRAC * abs(other))


def _has_pi(tree: Tree) -> bool:
    return tree == ("constant", "pi") or any(isinstance(part, tuple) and _has_pi(part) for part in tree[1:])


def _compare_symbols(gold: Tree, answer: Tree, variables: set[str], prove: Prover) -> bool | None:
    """Equal at every point; never no, because a name may stand for a constant.

    Fractions of polynomials that agree exactly at points nobody chose are equal: that they are not has a chance below 2^-90.
    """
    tried = points(variables, f"{gold}\0{answer}", _POINTS)
    try:
        if all(exact(gold, values) == exact(answer, values) for values in tried):
            return True
        if is_rational(gold) and is_rational(answer):
            return None
    except NotExact:
        pass
    for values in tried:
        one, two = number(gold, values), number(answer, values)
        if abs(one - two) > _EQUAL_FRAC * max(abs(one), abs(two)):
            return None
    return True if _proven(gold, answer, prove) else None


def _proven(gold: Tree, answer: Tree, prove: Prover) -> bool:
    variables = sorted(names(gold) | names(answer))
    if len(variables) > len(_LETTERS):
        return False
    letters = dict(zip(variables, _LETTERS, strict=False))
    return prove(f"${latex(gold, letters)}$", f"${latex(answer, letters)}$") is True


def latex(tree: Tree, letters: dict[str, str]) -> str:
    """A formula as LaTeX that can be read in one way only, with one letter for each name."""
    kind = tree[0]
    if kind == "number":
        return str(tree[1]) if not tree[1].startswith(".") else f"0{tree[1]}"
    if kind == "name":
        return letters[tree[1]]
    if kind == "constant":
        return r"\pi"
    if kind == "call":
        return rf"\{tree[1]}({latex(tree[2], letters)})"
    one, *others = (latex(part, letters) for part in tree[1:])
    two = others[0] if others else ""
    forms = {
        "neg": f"(-({one}))", "add": f"(({one})+({two}))", "sub": f"(({one})-({two}))", "mul": rf"(({one})\cdot({two}))",
        "div": rf"\frac{{{one}}}{{{two}}}", "pow": f"({one})^{{{two}}}", "factorial": f"({one})!",
        "root": rf"\sqrt[{one}]{{{two}}}", "binomial": rf"\binom{{{one}}}{{{two}}}", "log": rf"\log_{{{one}}}({two})",
    }  # fmt: skip
    return forms[kind]
