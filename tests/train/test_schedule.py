"""The learning rate as a function of the iteration."""

from __future__ import annotations

import pytest

from deepem.train.schedule import Schedule


def test_constant_is_one_after_a_linear_warm_up():
    assert [Schedule(warmup=4)(i) for i in (1, 2, 4, 5, 900)] == [0.25, 0.5, 1, 1, 1]
    assert Schedule()(1) == 1


def test_step_falls_after_its_iterations():
    rate = Schedule("step", steps=(3, 5), gamma=0.5)
    assert [rate(i) for i in range(1, 8)] == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(("name", "middle"), [("cosine", 0.5), ("poly", 0.5**0.9)])
def test_cosine_and_poly_fall_to_zero_at_the_end(name, middle):
    rate = Schedule(name, warmup=10, until=110)
    values = [rate(i) for i in range(11, 111)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1
    assert rate(61) == pytest.approx(middle)
    assert 0 < values[-1] < 0.02
    assert rate(1000) == 0
