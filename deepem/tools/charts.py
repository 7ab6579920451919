"""Curves for a page: thinned series as SVG paths, with axes of round numbers.

A path lies in a square of SIDE units, x to the right and y downwards, which the page stretches to any size; lines keep
their width. Labels are placed beside it in percent. ::

        0%  +-------------------+  highest value
            | o                 |
            |    o----o----o----|
       100% +-------------------+  lowest value
            0%                100%   iterations
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.runs.series import Series

SIDE = 1000
SPANS = 240
"""A curve is thinned to the first, least, greatest and last value of this many spans of iterations."""
MEANS = 80
"""A curve of many more values than this gets a line of the means of this many spans."""
DOTS = 80
"""A curve of more values than this has no dots."""
LOG_ABOVE = 8
"""An axis is logarithmic if the greatest mean of a span is this many times the least."""
TICKS = 4
LEAST, MOST = 1e-30, 1e30
"""Nearer to 0 a value is drawn as 0; beyond, as the greatest."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A series to draw.

    Attributes:
        label: Its name in the key.
        series: The numbers.
        colour: The number of its colour; the page has 8.
        dots: Whether its values are few and far apart, as those of evaluations: they are marked if there is room.
        dashed: Whether to draw a dashed line, for curves beyond the number of colours.
    """

    label: str
    series: Series
    colour: int = 0
    dots: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Line:
    """A curve in a chart.

    Attributes:
        curve: What it shows.
        path: The SVG path of its values.
        dots: The SVG path of a dot at each value; empty for no dots.
        mean: The SVG path of its means; empty for a curve of few values.
        last: The last value, as text.
    """

    curve: Curve
    path: str
    dots: str
    mean: str
    last: str


@dataclass(frozen=True)
class Chart:
    """A chart, ready to be placed on a page.

    Attributes:
        title: What it shows.
        unit: The unit of y, and whether its axis is logarithmic; may be empty.
        lines: The curves.
        x_ticks: (position in percent, label) on the axis of iterations.
        y_ticks: (position in percent, label), from the top.
        values: What the page needs to show the values under the pointer, for JSON.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    values: Mapping[str, Any]


def chart(title: str, unit: str, curves: Sequence[Curve], until: int, *, from_zero: bool = False) -> Chart | None:
    """Draw curves over the iterations 0 to `until`; None if they have no values.

    Args:
        title: What they show.
        unit: The unit of their values.
        curves: The curves.
        until: The last iteration on the axis.
        from_zero: Whether the axis of values begins at 0, as for a speed, whatever the values.
    """
    curves = [curve for curve in curves if len(curve.series.iterations)]
    if not curves:
        return None
    until = max(until, 1)
    axis = Axis.of([curve.series for curve in curves], from_zero=from_zero)
    lines, values = [], []
    for curve in curves:
        x, y = thinned(curve.series)
        mean = ""
        if len(curve.series.iterations) > 3 * MEANS and not curve.dots:
            mean = path(*(means(curve.series)), until, axis)
        drawn = path(x, y, until, axis)
        dots = f"{drawn.replace('L', 'h0M')}h0" if curve.dots and len(x) <= DOTS else ""
        lines.append(Line(curve, drawn, dots, mean, reading(float(curve.series.values[-1]))))
        values.append({"label": curve.label, "colour": curve.colour, "x": x.tolist(), "y": [_short(v) for v in y]})
    unit = ", ".join(filter(None, (unit, "log scale" if axis.log else "")))
    x_ticks = [(100 * tick / until, count(tick)) for tick in round_numbers(0, until) if tick == round(tick)]
    y_ticks = [(100 - 100 * axis.at(tick), number(tick)) for tick in axis.ticks]
    return Chart(title, unit, lines, x_ticks, y_ticks, {"until": until, "curves": values})


@dataclass(frozen=True)
class Axis:
    """The axis of values.

    Attributes:
        low: The value at its lower end.
        high: The value at its upper end.
        log: Whether it is logarithmic.
        ticks: Round numbers on it.
    """

    low: float
    high: float
    log: bool
    ticks: Sequence[float]

    @classmethod
    def of(cls, series: Sequence[Series], *, from_zero: bool = False) -> Axis:
        """Return the axis on which all values lie, and perhaps 0.

        It is logarithmic if the course of the values, without their noise, spans LOG_ABOVE.
        """
        values = [drawable(one.values) for one in series]
        low, high = min(float(part.min()) for part in values), max(float(part.max()) for part in values)
        if from_zero:
            low, high = min(low, 0.0), max(high, 0.0)
        course = np.concatenate([means(one)[1] for one in series])
        if low > 0 and course.max() / course.min() >= LOG_ABOVE:
            return cls(low / 1.1, high * 1.1, True, log_numbers(low, high))
        flat = high - low <= 1e-9 * max(abs(low), abs(high))
        room = (abs(high) * 0.1 or 1.0) if flat else (high - low) * 0.06
        low, high = (max(low - room, 0.0) if low >= 0 else low - room), high + room
        return cls(low, high, False, round_numbers(low, high))

    def at(self, value: Any) -> Any:
        """Return the position of a value, 0 at the lower end and 1 at the upper."""
        if self.log:
            return np.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def drawable(values: Numbers) -> Numbers:
    """Return values within the numbers that an axis can show."""
    return np.where(np.abs(values) < LEAST, 0.0, values.clip(-MOST, MOST))


def path(x: NDArray[Any], y: Numbers, until: int, axis: Axis) -> str:
    """Return an SVG path through points; a single one becomes a line without length, which is drawn as a dot."""
    across, down = SIDE * x / until, SIDE * (1 - axis.at(drawable(y)))
    points = [f"{a:.1f} {b:.1f}" for a, b in zip(across.tolist(), down.tolist(), strict=True)]
    return f"M{points[0]}L{'L'.join(points[1:] or points)}"


def thinned(series: Series, spans: int = SPANS) -> tuple[NDArray[np.int64], Numbers]:
    """Return the points of a series that a curve of limited width shows: extremes and ends of equal spans are kept."""
    x, y = series.iterations, series.values
    if len(x) <= 4 * spans:
        return x, y
    kept = []
    for first, end in _spans(x, spans):
        part = y[first:end]
        kept += sorted({first, first + int(part.argmin()), first + int(part.argmax()), end - 1})
    return x[kept], y[kept]


def means(series: Series, spans: int = MEANS) -> tuple[Numbers, Numbers]:
    """Return the mean iteration and the mean value of equal spans of iterations."""
    parts, values = _spans(series.iterations, spans), drawable(series.values)
    x = [float(series.iterations[first:end].mean()) for first, end in parts]
    return np.array(x), np.array([float(values[first:end].mean()) for first, end in parts])


def _spans(x: NDArray[np.int64], spans: int) -> list[tuple[int, int]]:
    """Return the (first, end) of the values in each of equal spans of iterations; empty spans are left out."""
    edges = np.linspace(float(x[0]), float(x[-1]) + 1, spans + 1)
    ends = np.unique(np.append(np.searchsorted(x, edges), len(x)))
    return list(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True))


def round_numbers(low: float, high: float, most: int = TICKS) -> list[float]:
    """Return up to `most` + 1 multiples of 1, 2, 2.5 or 5 times a power of ten between two numbers, both included."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(n * step, 12) if abs(step) > 1e-9 else n * step for n in range(first, last + 1)]


def log_numbers(low: float, high: float) -> list[float]:
    """Return round numbers between two positive ones for a logarithmic axis: decades, and in few decades 2 and 5."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    step = max(len(decades) // (TICKS + 1), 1)
    factors = (1, 2, 5) if len(decades) <= 3 else (1,)
    found = [factor * 10.0**power for power in decades[::step] for factor in factors]
    return [tick for tick in found if low / 1.1 <= tick <= high * 1.1]


def number(value: float) -> str:
    """Return a number with four digits, without needless zeros: 0.1234, 0.002, 1e-5, 12,345."""
    if value and not 1e-4 <= abs(value) < 1e7:
        digits, _, power = f"{value:.3g}".partition("e")
        return f"{digits}e{int(power)}" if power else digits
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def reading(value: float) -> str:
    """Return a measured number with four digits: 0.2360, 12.00, 1e-05."""
    return f"{value:#.4g}" if 1e-3 <= abs(value) < 1000 else number(value)


def count(value: float) -> str:
    """Return a count of iterations: 500, 20k, 1.5M."""
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if value >= factor:
            return f"{value / factor:g}{unit}"
    return f"{value:g}"


def _short(value: float) -> float:
    return float(f"{value:.4g}")
