"""Random formulas: respelled by moving their parts as arithmetic allows, and made wrong by changing one part."""

from __future__ import annotations

from tests.adversary.case import Case, Random

Node = tuple  # type: ignore[type-arg]
"""("+", a, b), ("*", a, b), ("/", a, b), ("^", a, exponent), ("sqrt", a), or a leaf."""


def _leaf(rng: Random, names: str) -> Node:
    return ("leaf", rng.choice(names)) if names and rng.random() < 0.6 else ("leaf", str(rng.randrange(2, 30)))


def grown(rng: Random, names: str, depth: int) -> Node:
    """A random formula."""
    if depth == 0 or rng.random() < 0.25:
        return _leaf(rng, names)
    kind = rng.choice(["+", "-", "*", "/", "^", "sqrt"] if not names else ["+", "-", "*", "/", "^"])
    if kind == "^":
        return ("^", _leaf(rng, names), str(rng.randrange(2, 4)))
    if kind == "sqrt":
        return ("sqrt", ("leaf", str(rng.choice([2, 3, 5, 7, 8, 12, 18]))))
    return (kind, grown(rng, names, depth - 1), grown(rng, names, depth - 1))


def spelled(rng: Random, node: Node) -> str:
    """As LaTeX, each time with other brackets, signs and orders that mean the same."""
    kind, *parts = node
    if kind == "leaf":
        return parts[0]
    if kind == "sqrt":
        return rf"\sqrt{{{spelled(rng, parts[0])}}}"
    if kind == "^":
        base = spelled(rng, parts[0])
        return rng.choice([f"{base}^{{{parts[1]}}}", f"{base}^{parts[1]}", f"({base})^{{{parts[1]}}}"])
    one, two = (spelled(rng, part) for part in parts)
    if kind == "/":
        return rng.choice([rf"\frac{{{one}}}{{{two}}}", rf"\dfrac{{{one}}}{{{two}}}"])
    if kind == "-":
        return f"({one}) - ({two})"
    if rng.random() < 0.5:
        one, two = two, one
    if kind == "+":
        return f"({one}) + ({two})"
    return rng.choice([rf"({one}) \cdot ({two})", f"({one})*({two})", rf"({one}) \times ({two})", f"({one})({two})"])


def worth(node: Node, values: dict[str, complex]) -> complex:
    """Its value."""
    kind, *parts = node
    if kind == "leaf":
        return values.get(parts[0]) or complex(float(parts[0]))
    if kind == "sqrt":
        return worth(parts[0], values) ** 0.5
    if kind == "^":
        return worth(parts[0], values) ** int(parts[1])
    one, two = (worth(part, values) for part in parts)
    return {"+": lambda: one + two, "-": lambda: one - two, "*": lambda: one * two, "/": lambda: one / two}[kind]()


def changed(rng: Random, node: Node, names: str) -> Node:
    """With one leaf, exponent or operator replaced."""
    kind, *parts = node
    if kind == "leaf":
        return _leaf(rng, names)
    if kind == "^" and rng.random() < 0.5:
        return ("^", parts[0], str(int(parts[1]) + 1))
    if kind in "+-*/" and rng.random() < 0.3:
        return (rng.choice([other for other in "+-*/" if other != kind]), *parts)
    place = rng.randrange(len(parts)) if kind in "+-*/" else 0
    parts[place] = changed(rng, parts[place], names)
    return (kind, *parts)


def formula(rng: Random) -> Case:
    """A formula in two names or none."""
    names = rng.choice(["xy", "ab", ""])
    node = grown(rng, names, rng.randrange(1, 4))
    values = {"x": 1.37 + 0.2j, "y": 0.71 - 0.4j, "a": 1.91 + 0.3j, "b": 0.53 + 0.6j}
    wrong = []
    for _ in range(3):
        other = changed(rng, node, names)
        try:
            one, two = worth(node, values), worth(other, values)
        except (ZeroDivisionError, OverflowError):
            continue
        if abs(one - two) > 1e-6 * max(1.0, abs(one), abs(two)):
            wrong.append(spelled(rng, other))
    gold = spelled(rng, node)
    wrong += [f"-({gold})"] if gold != "0" and _is_not_zero(node, values) else []
    wrong += [
        f"${gold}$, ${gold} + 1$",
        f"{gold} + 1",
        f"{gold} \\ldots",
        f"{gold}'",
        f"not {gold}",
        f"{gold} or 1",
        f"~{gold}",
    ]
    return Case(gold, (spelled(rng, node), f"${spelled(rng, node)}$", rf"\boxed{{{gold}}}"), tuple(wrong))


def _is_not_zero(node: Node, values: dict[str, complex]) -> bool:
    try:
        return abs(worth(node, values)) > 1e-6
    except (ZeroDivisionError, OverflowError):
        return False


KINDS = (formula,)
