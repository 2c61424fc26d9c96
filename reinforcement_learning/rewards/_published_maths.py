r"""The form that the published scorer gives an answer of `reason` before its judge sees it.

Known to surprise: "a " and all blanks go, and so do units ("5 cm" and "5 km" are 5), words such as "sue" and "ways" wherever
they stand ("pursue" is "pur"), and all that stands before the last "=".
Source: DeepEyesV2 0373e6e, verl/utils/reward_score/deepeyesv2.py, normalize_final_answer.
"""

from __future__ import annotations

import re

# In this order: "\text{m}" is emptied here, and what is empty is taken off below.
_REPLACED = (
    ("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), ("\\ ", ""), (" ", ""), ("mbox", "text"), (",\\text{and}", ","),
    ("\\text{and}", ","), ("\\text{m}", "\\text{}"),
)  # fmt: skip
_TAKEN_OFF = (
    "square", "ways", "integers", "dollars", "mph", "inches", "hours", "km", "units", "\\ldots", "sue", "points", "feet",
    "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students", "childrentickets",
    "multiples", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}", "\\text{}",
    "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"', "\\dots",
)  # fmt: skip
_REWRITTEN = (
    # A line with a formula is that formula.
    (re.compile(r".*?\$(.*?)\$.*"), r"$\1$"),
    *((re.compile(rf"\\{command}\{{(.*?)\}}"), r"\1") for command in ("text", "textbf", "overline")),
    (re.compile(r"\\boxed\{(.*)\}"), r"\1"),
    # "\frac12" is "\frac{1}{2}", "\sqrt2" is "\sqrt{2}".
    (re.compile(r"frac([^{])(.)"), r"frac{\1}{\2}"),
    (re.compile(r"sqrt([^{])"), r"sqrt{\1}"),
)


def published_form(answer: str) -> str:
    """An answer as the published judge of `reason` is shown it; empty if nothing is left."""
    text = answer.rpartition("=")[2]
    for before, after in _REPLACED:
        text = text.replace(before, after)
    for gone in _TAKEN_OFF:
        text = text.replace(gone, "")
    for pattern, written in _REWRITTEN:
        text = pattern.sub(written, text)
    text = text.replace("$", "")
    digits = text.replace(",", "")
    return (digits if digits.isdigit() else text).strip()
