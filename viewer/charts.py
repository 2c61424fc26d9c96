"""Charts of pages that stand alone: drawn without a script, each with its values as a table too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from viewer.templates import render

_HERE = Path(__file__).parent
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 460, 250, 44, 32, 26, 12
_FRACTIONS = (0.0, 0.25, 0.5, 0.75, 1.0)


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]], *, x_label: str, y_range: tuple[float, float] | None = None
) -> Markup:
    """Lines over numbered steps. The values of the step under the pointer stand over the plot.

    Args:
        series: Name -> points (x, y), in order of x. Empty series are left out.
        x_label: Under the axis.
        y_range: Fixed, or fitted to the points.
    """
    shown = {name: points for name, points in series.items() if points}
    xs = sorted({x for points in shown.values() for x, _ in points})
    ys = [y for points in shown.values() for _, y in points]
    low, high = y_range or (min([0.0, *ys]), max(ys, default=0.0) * 1.05 or 1.0)

    def across(x: float) -> float:
        fraction = (x - xs[0]) / (xs[-1] - xs[0]) if xs[-1] > xs[0] else 0.5
        return _LEFT + fraction * (_WIDTH - _LEFT - _RIGHT)

    def up(y: float) -> float:
        fraction = (y - low) / (high - low) if high > low else 0.5
        return _HEIGHT - _BOTTOM - fraction * (_HEIGHT - _BOTTOM - _TOP)

    values: dict[float, dict[str, float]] = defaultdict(dict)
    for name, points in shown.items():
        for x, y in points:
            values[x][name] = y
    half = (_WIDTH - _LEFT - _RIGHT) / max(1, len(xs) - 1) / 2
    steps = [
        {"x": x, "at": across(x), "shown": values[x], "heights": {name: up(y) for name, y in values[x].items()}} for x in xs
    ]
    return render(
        _HERE / "line_chart.html",
        names=list(shown),
        lines={  # the last point twice, for a series of one is a dot
            name: " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in (*points, points[-1]))
            for name, points in shown.items()
        },
        steps=steps,
        half=half,
        ticks=[(low + fraction * (high - low), up(low + fraction * (high - low))) for fraction in _FRACTIONS],
        x_label=x_label,
        width=_WIDTH,
        height=_HEIGHT,
        plot={"left": _LEFT, "right": _WIDTH - _RIGHT, "top": _TOP, "bottom": _HEIGHT - _BOTTOM},
    )


def bar_chart(values: Mapping[str, float], *, unit: str = "") -> Markup:
    """Horizontal bars with their values.

    Args:
        values: Name -> length, not below 0.
        unit: Written after each value.
    """
    longest = max(values.values(), default=0.0) or 1.0
    bars = [(name, 100 * value / longest, f"{value:,.4g}{unit}") for name, value in values.items()]
    return render(_HERE / "bar_chart.html", bars=bars)
