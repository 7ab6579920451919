"""What the tests compare with tells differences apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lab import same, same_partition

STATE = {"a": torch.tensor([1.0, 2.0]), "b": [1, {"c": np.zeros(3)}], "d": "text"}


def test_equal_values_are_the_same():
    assert same(STATE, {"a": torch.tensor([1.0, 2.0]), "b": [1, {"c": np.zeros(3)}], "d": "text"})


@pytest.mark.parametrize(
    "other",
    [
        STATE | {"a": torch.tensor([1.0, 2.0000002])},
        STATE | {"a": torch.tensor([1.0, 2.0], dtype=torch.float64)},
        STATE | {"a": torch.tensor([[1.0, 2.0]])},
        STATE | {"a": [1.0, 2.0]},
        STATE | {"b": [1, {"c": np.zeros(3)}, 2]},
        STATE | {"b": [1, {"c": np.array([0, 0, 1.0])}]},
        STATE | {"d": "texts"},
        {key: STATE[key] for key in "bad"},
        {key: STATE[key] for key in "ab"},
    ],
)
def test_any_difference_is_seen(other):
    assert not same(STATE, other)
    assert not same(other, STATE)


def test_partitions_are_compared_without_names_but_with_their_background():
    a = np.array([0, 1, 1, 2])
    assert same_partition(a, np.array([0, 7, 7, 3]))
    assert not same_partition(a, np.array([0, 7, 7, 7]))
    assert not same_partition(a, np.array([0, 7, 6, 3]))
    assert not same_partition(a, np.array([4, 7, 7, 3]))
