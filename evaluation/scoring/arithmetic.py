"""Equality of mathematical answers as VLMEvalKit's MathVision scorer has it, without running what a model wrote.

The reference calls Python's `eval` on the answer, then latex2sympy. Here a small interpreter does the arithmetic, and
LaTeX is parsed in a process that is ended after a second. Source: VLMEvalKit e8e78f05, vlmeval/dataset/utils/mathv.py
(is_equal).
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

from judge.maths import shared

_TOLERANCE = 1e-6
_MAX_CHARS = 300
_MAX_POWER_BITS = 4096
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.BitXor: operator.xor, ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
}  # fmt: skip
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Invert: operator.invert,
}  # fmt: skip
_BOXED = re.compile(r"\\boxed\{([^}]*)\}")
Number = int | float | complex


class NoArithmetic(ValueError):
    """The text is no arithmetic expression."""


def evaluate(text: str) -> Number:
    """The value of a Python expression of numbers, such as `3/4` or `2**0.5`; names and calls are refused.

    Raises:
        NoArithmetic: It is something else, too long, or has no value.
    """
    if len(text) > _MAX_CHARS:
        raise NoArithmetic(f"{len(text)} characters")
    try:
        return _value(ast.parse(text.strip(), mode="eval").body)
    except NoArithmetic:
        raise
    except (SyntaxError, ValueError, TypeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise NoArithmetic(str(error)) from error


def _value(node: ast.expr) -> Number:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | complex):
        return node.value
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return _UNARY[type(node.op)](_value(node.operand))  # type: ignore[no-any-return]
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
        if type(node.op) in _BINARY:
            return _BINARY[type(node.op)](left, right)  # type: ignore[no-any-return]
    raise NoArithmetic(f"{type(node).__name__} is no arithmetic")


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > _MAX_POWER_BITS:
        raise NoArithmetic("the power is too large")
    return base**exponent  # type: ignore[no-any-return]


def is_equal(answer: str, gold: str) -> bool:
    r"""Equal text, equal arithmetic within 1e-6, or LaTeX of equal value.

    Known to surprise: `\sqrt{2}` is not 1.41421356, `x=3` is not 3, `50%` is 0.5.
    """
    answer, gold = answer.lower().strip(), gold.lower().strip()
    if answer == gold:
        return True
    try:
        return abs(evaluate(gold) - evaluate(answer)) < _TOLERANCE or _equal_latex(answer, gold)
    except (NoArithmetic, OverflowError):
        return _equal_latex(answer, gold)


def _equal_latex(answer: str, gold: str) -> bool:
    """Both are read as LaTeX, and what they come to is arithmetic again."""
    if max(len(answer), len(gold)) > _MAX_CHARS:
        return False
    # The parser that goes with verl's antlr 4.9 fails on per cent; what it means is written out.
    texts = [shared().plain(text.replace("\\%", "%").replace("%", "\\cdot \\frac{1}{100}")) for text in (gold, answer)]
    try:
        values = [evaluate(text) for text in texts if text is not None]
        return len(values) == 2 and abs(values[0] - values[1]) < _TOLERANCE
    except (NoArithmetic, OverflowError):
        return False


def unboxed(gold: str) -> str:
    r"""What stands in the first `\boxed{}` of a gold answer, up to the first closing brace; without a box, all of it."""
    boxed = _BOXED.search(gold)
    return boxed[1] if boxed is not None else gold


def without_parentheses(extracted: str) -> str:
    r"""An extraction without `\(` and `\)`, if it has both."""
    if r"\(" in extracted and r"\)" in extracted:
        return extracted.replace(r"\(", "").replace(r"\)", "")
    return extracted
