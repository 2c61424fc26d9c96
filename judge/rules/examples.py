r"""What each rule accepts, with examples: the table of judge/README.md, held to it by tests that run every example.

python -m judge.rules.examples       prints the table
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

Pairs = tuple[tuple[str, str], ...]
"""(gold, answer)."""


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule."""

    name: str
    """As `Verdict.decided_by` has it after `rule:`."""
    domain: str
    """What gold and answer have to be, each as a whole."""
    right: Pairs
    wrong: Pairs
    open: Pairs
    """Near its domain, and for a judge."""


TABLE = (
    RuleRow(
        "exact",
        "the same text but for layout (bold, quotes, `$…$`, a box, full width, a full stop, «the answer is»), an "
        "article in front, and the case of words; the case of symbols, primes, factorials and superscripts count",
        (("red car", "**The red car.**"), ("Vitamin A", "vitamin A"), ("$x'$", "x'")),
        (),
        (("Vitamin A", "Vitamin"), ("Co", "CO"), ("x²", "x2"), ("f'", "f"), ("Paris", "Paris, Texas")),
    ),
    RuleRow(
        "choice",
        "a capital letter; the letter, perhaps announced, in brackets or with its text, which negates nothing, takes "
        "nothing back and names no other; where the question shows the options, with just that text",
        (("B", "(B)"), ("B", "The answer is b"), ("C", "C. A pretty girl")),
        (("B", "C. a dog"),),
        (("A", "A. dog or B. cat"), ("B", "B. No wait, C."), ("A", "not A"), ("A, C", "C, A")),
    ),
    RuleRow(
        "yes_no",
        "the bare words yes, no, true, false",
        (("yes", "True."),),
        (("no", "Yes!"),),
        (("yes", "yes, but"), ("No", "NO")),
    ),
    RuleRow(
        "words",
        "words of one closed class, such as colours, weekdays, left and right",
        (("grey", "GRAY"),),
        (("red", "blue"), ("Monday", "Tuesday")),
        (("red", "crimson"), ("red", "dark blue")),
    ),
    RuleRow(
        "number",
        "one number, in digits, words or LaTeX, perhaps with a unit, percent, currency or noun. Equal to the last "
        "digit, after exact conversion, is right; wrong is what is one in the coarser last place off, or measures "
        "another thing",
        (("2,000,000", "2 million"), ("1.5 m", "150 centimeters"), ("1.6e-19", "1.6 × 10^-19"), ("42", "forty-two")),
        (("2,345,678.50", "2,345,678.05"), ("5 MW", "5 mW"), ("1e-7", "2e-7"), ("$5", "€5")),
        (("0.6", "0.57"), ("12 cm", "12"), ("50%", "0.5"), ("3.10", "3.1"), ("007", "7"), ("1,234", "1.234")),
    ),
    RuleRow(
        "date",
        "a date with the same parts on both sides; every reading of an ambiguous one",
        (("2024-03-05", "March 5th, 2024"), ("2024-03-15", "15/03/2024")),
        (("2024-03-05", "5 April 2024"), ("3/4/2021", "6/8/2021")),
        (("2024-03-05", "05/03/2024"), ("2024", "March 5, 2024")),
    ),
    RuleRow(
        "time",
        "a time of day",
        (("3:00 PM", "15:00"),),
        (("3:00 PM", "3:00 AM"),),
        (("12:30", "12:30 PM"), ("8:20", "2:5")),
    ),
    RuleRow("range", "two ends", (("10–20", "between 10 and 20"),), (("6-12", "12-18"),), (("2-1", "1"), ("2-1", "1-2"))),
    RuleRow(
        "ratio",
        "numbers with colons that are no time",
        (("3:4", "3 : 4"),),
        (("1:2:3", "1:2:4"),),
        (("3:4", "6:8"), ("16:9", "9:16")),
    ),
    RuleRow(
        "list",
        "two items or more, equal in order; in any order if the gold stands in braces. Wrong are plain numbers of "
        "which one is missing or another",
        (("salt, pepper", "salt and pepper"), ("{1, 2}", "2, 1")),
        (("2, 3, 5", "2, 3"),),
        (("Rome, Paris", "Paris and Rome"), ("(0,1)", "[0,1]"), ("1, 2", "1, 2, 2")),
    ),
    RuleRow(
        "candidates",
        "an answer that lists several letters, plain numbers or closed formulas, or joins words of a class with «or»; "
        "wrong if one of them is",
        (),
        (("C", "A, C"), ("5", "$1$ $2$ $3$ $4$ $5$"), ("7", "7 or 8"), ("red", "red or blue")),
        (("Paris", "Paris or Rome"), ("12", "12 or so")),
    ),
    RuleRow("code", "the same letters with another number", (), (("E10", "E5"),), (("B12", "B 12"), ("12A", "E5"))),
    RuleRow(
        "maths",
        "one formula as a whole, of 300 characters at most (judge/rules/formulas.py). Right is what is equal exactly, "
        "or to 40 digits and proven by math-verify in a second; wrong are numbers that differ. No ranges, scores, "
        "sizes, times, units, functions of unknown name",
        ((r"\sqrt{8}", r"2\sqrt{2}"), ("y=2x+1", "y=1+2x"), ("x^2-1", "(x-1)(x+1)")),
        ((r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"), ("8", "2^4")),
        ((r"\pi", "3.14159"), ("x+2", "x+1"), ("V=IR", "V=Ir"), (r"4", r"4\sqrt(2)"), ("1 - 1/e", "1 + 1/e")),
    ),
)  # fmt: skip


def markdown() -> str:
    """The table as the page has it."""
    lines = [
        "| rule | gold and answer are each, as a whole | right | wrong | left open |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in TABLE:
        columns = (row.right, row.wrong, row.open)
        cells = ("<br>".join(f"`{gold}` ← `{answer}`" for gold, answer in pairs) for pairs in columns)
        lines.append(f"| {row.name} | {row.domain} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
