"""Curves of a report: what is thinned keeps its extremes, and axes have round numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from deepem.runs.series import Series
from deepem.tools import charts
from deepem.tools.charts import Axis, Curve, chart


def series(values: object, first: int = 1) -> Series:
    array = np.asarray(values, np.float64)
    return Series(np.arange(first, first + len(array)), array)


def points(path: str) -> list[tuple[float, float]]:
    """The points of an SVG path."""
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.-]+) ([\d.-]+)", path)]


def test_a_point_lies_where_its_numbers_say() -> None:
    made = chart("a", "loss", [Curve("train", series([0.0, 10.0, 5.0], first=0))], 2)
    assert made is not None
    low, high = Axis.of([series([0.0, 10.0])]).low, Axis.of([series([0.0, 10.0])]).high
    assert (low, high) == (0, 10.6)
    expected = [(0, 1000), (500, 1000 * (1 - 10 / high)), (1000, 1000 * (1 - 5 / high))]
    np.testing.assert_allclose(points(made.lines[0].path), expected, atol=0.06)
    assert made.lines[0].last == "5.000"
    assert made.values == {"until": 2, "curves": [{"label": "train", "colour": 0, "x": [0, 1, 2], "y": [0, 10, 5]}]}
    assert [label for _, label in made.x_ticks] == ["0", "1", "2"]
    assert (made.x_ticks[1], made.y_ticks[0][1]) == ((50, "1"), "0")
    assert made.y_ticks[0][0] == 100


def test_a_thinned_curve_keeps_every_extreme() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=300_000)
    values[123_456], values[234_567] = 50, -50
    x, y = charts.thinned(series(values))
    assert len(x) <= 4 * charts.SPANS
    assert {50, -50} <= set(y.tolist())
    assert (x[0], x[-1]) == (1, 300_000)
    assert (np.diff(x) > 0).all()
    assert np.array_equal(y, values[x - 1])
    for part in np.array_split(np.arange(300_000), 100):  # coarser than the spans: each holds whole ones
        inside = np.isin(x - 1, part)
        assert np.quantile(values[part], 0.999) < y[inside].max()


def test_a_short_curve_is_drawn_as_it_is() -> None:
    short = series(np.arange(100.0))
    assert charts.thinned(short)[1].tolist() == short.values.tolist()
    made = chart("a", "", [Curve("train", short)], 100)
    assert made is not None
    assert made.lines[0].mean == ""


def test_a_long_noisy_curve_has_its_mean_on_top() -> None:
    noisy = series(np.tile([0.0, 2.0], 5000))
    made = chart("a", "", [Curve("train", noisy)], 10_000)
    assert made is not None
    heights = {round(y) for _, y in points(made.lines[0].mean)}
    middle = 1000 * (1 - Axis.of([noisy]).at(1.0))
    assert max(abs(height - middle) for height in heights) < 10


def test_an_axis_is_logarithmic_by_the_course_of_the_values_and_not_by_their_noise() -> None:
    falls = series(np.geomspace(1, 0.01, 1000))
    assert Axis.of([falls]).log
    assert Axis.of([falls]).ticks == pytest.approx([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1])
    assert Axis.of([series(np.geomspace(1, 1e-5, 1000))]).ticks == pytest.approx([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1])
    assert not Axis.of([series(np.random.default_rng(0).uniform(1e-9, 1, 100_000))]).log
    assert not Axis.of([series([1, 0, -1])]).log
    assert not Axis.of([falls], from_zero=True).log
    made = chart("a", "loss", [Curve("train", falls)], 1000)
    assert made is not None
    assert made.unit == "loss, log scale"


@pytest.mark.parametrize(
    "values",
    [[0.0], [5.0] * 3, [-3.0], [1e-320, 0.0], [1e308, -1e308], [1e-12, 1.0], [1e9, 1e9 + 1], [0.001, 0.0010001]],
)
def test_any_numbers_have_an_axis(values: list[float]) -> None:
    made = chart("a", "", [Curve("train", series(values), dots=True)], len(values))
    assert made is not None
    for path in (made.lines[0].path, made.lines[0].dots):
        assert all(-1 <= y <= 1001 for _, y in points(path))
    assert all(-1 <= at <= 101 for at, _ in (*made.x_ticks, *made.y_ticks))
    assert made.y_ticks


def test_curves_without_values_are_no_chart() -> None:
    assert chart("a", "", [], 10) is None
    assert chart("a", "", [Curve("train", series([]))], 10) is None


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 100, [0, 25, 50, 75, 100]),
        (0, 80, [0, 20, 40, 60, 80]),
        (0.13, 0.58, [0.2, 0.4]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert charts.round_numbers(low, high) == pytest.approx(ticks)


def test_numbers_are_short() -> None:
    numbers = (0.0, 0.00123456, 1e-5, 12345.6, 2e9, -0.25)
    assert [charts.number(n) for n in numbers] == ["0", "0.001235", "1e-5", "12,346", "2e9", "-0.25"]
    assert [charts.reading(n) for n in (0.236, 12, 0.00005)] == ["0.2360", "12.00", "5e-5"]
    assert [charts.count(n) for n in (0, 500, 20_000, 2_500_000)] == ["0", "500", "20k", "2.5M"]
