"""The calls of an episode: which tool, what kind of code, and what went wrong; reports and metrics count them.

Kinds of code follow the DeepEyesV2 paper (appendix A.6): crop, numerical analysis, mark, other. They are told from the
program's syntax tree, never from its words: a comment that says "crop" crops nothing.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.episode import Turn
from agent.protocol import Malformed, ToolCall
from agent.records import STRICT

KINDS = ("crop", "numerical", "mark", "other", "image_search", "search")
"""The paper's six; `search` is its text search, which opened pages belong to."""
_MARKS = frozenset(
    [
        "rectangle",
        "line",
        "lines",
        "ellipse",
        "polygon",
        "arc",
        "circle",
        "arrowedLine",
        "polylines",
        "putText",
        "drawContours",
        "add_patch",
        "add_artist",
        "annotate",
        "axhline",
        "axvline",
        "axhspan",
        "axvspan",
        "drawMarker",
        "rounded_rectangle",
    ]
)
_IMAGE_CHANGES = frozenset(
    [
        "rotate",
        "transpose",
        "enhance",
        "filter",
        "convert",
        "flip",
        "resize",
        "thumbnail",
        "autocontrast",
        "equalize",
        "threshold",
        "cvtColor",
        "GaussianBlur",
        "invert",
        "adaptiveThreshold",
        "warpAffine",
        "warpPerspective",
        "Canny",
        "point",
        "fliplr",
    ]
)
_NUMERICAL_MODULES = frozenset(
    ["math", "sympy", "scipy", "statistics", "fractions", "numpy", "np", "sp", "itertools", "decimal"]
)
_NUMERICAL_CALLS = frozenset(
    ["sum", "min", "max", "abs", "round", "len", "sorted", "mean", "histogram", "getcolors", "getpixel"]
)
_SHOWS = frozenset(["print", "display", "show", "imshow", "figure", "axis", "subplots", "title", "open"])


@dataclass(frozen=True, kw_only=True, slots=True)
class CallFacts:
    """One call of a tool."""

    __pydantic_config__ = STRICT

    tool: str
    """Its name; empty for a call that could not be read."""
    kind: str
    """One of `KINDS`; a call that could not be read is `other`."""
    error: str = ""
    """Class of the error that the model was told of."""
    placeholder: bool = False
    """The code does nothing."""
    repeated: bool = False
    """An equal call was made before in this episode."""
    seconds: float = 0.0


def classify_code(code: str) -> str:
    """`crop`, `mark`, `numerical` or `other`. A program that draws is a mark even if it also crops."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return "other"
    crops = numerical = changes = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _called(node.func)
            if name in _MARKS and isinstance(node.func, ast.Attribute):
                return "mark"
            crops = crops or name == "crop"
            changes = changes or name in _IMAGE_CHANGES
            numerical = numerical or name in _NUMERICAL_CALLS or _root(node.func) in _NUMERICAL_MODULES
        elif isinstance(node, ast.Subscript):
            crops = crops or _is_window(node.slice)
        elif isinstance(node, ast.BinOp):
            numerical = True
    if crops:
        return "crop"
    return "numerical" if numerical and not changes else "other"


def is_placeholder(code: str) -> bool:
    """Nothing happens: no code, comments, `pass`, constants, or printed constants. The mark of a reward that pays for
    calls.
    """
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return all(_does_nothing(statement) for statement in body)


def _does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Pass | ast.Import | ast.ImportFrom):
        return True
    if not isinstance(statement, ast.Expr):
        return False
    value = statement.value
    if isinstance(value, ast.Call) and _called(value.func) == "print":
        return all(isinstance(argument, ast.Constant) for argument in value.args)
    return isinstance(value, ast.Constant)


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _is_window(index: ast.expr) -> bool:
    """`[y1:y2, x1:x2]`, perhaps with a channel."""
    return isinstance(index, ast.Tuple) and sum(isinstance(part, ast.Slice) for part in index.elts[:2]) == 2


def calls_of(turns: Sequence[Turn]) -> Iterator[CallFacts]:
    """The calls of an episode, in order; a call that the parser refused counts as one with an error."""
    before: set[str] = set()
    for turn in turns:
        action = turn.action
        if isinstance(action, Malformed) and action.observation is not None:
            yield CallFacts(tool="", kind="other", error="malformed", seconds=round(turn.tool_s, 3))
        if not isinstance(action, ToolCall):
            continue
        signature = json.dumps([action.name, action.arguments], sort_keys=True)
        code = str(action.arguments.get("code", "")) if action.name == "python" else ""
        yield CallFacts(
            tool=action.name,
            kind=_kind(action.name, code),
            error=error_class(turn.tool_error),
            placeholder=action.name == "python" and is_placeholder(code),
            repeated=signature in before,
            seconds=round(turn.tool_s, 3),
        )
        before.add(signature)


def _kind(tool: str, code: str) -> str:
    if tool == "python":
        return classify_code(code)
    if tool in ("search", "fetch_page"):
        return "search"
    return "image_search" if tool == "image_search" else "other"


_ERROR_NAME = re.compile(r"^[A-Za-z_]+(?:Error|Exception|Interrupt|Iteration|Exit|Died|Warning)$")


def error_class(error: str) -> str:
    """`NameError`, `TimeoutError` … as they are; what a tool refused is `refused`; nothing for no error."""
    if not error:
        return ""
    return error if _ERROR_NAME.match(error) else error if error in ("unknown tool", "too many calls") else "refused"
