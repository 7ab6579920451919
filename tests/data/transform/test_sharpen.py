"""Sharper sections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.transform.encoded import grey, rng, run
from scipy.ndimage import gaussian_filter

from deepem.data.transform import Sharpen, Spec
from deepem.data.transform.sharpen import Unsharp

SPEC = Spec({"img": (6, 40, 44)}, ("img",))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_is_an_unsharp_mask_of_each_section(dtype: Any) -> None:
    white = 255 if dtype == np.uint8 else 1
    for seed in range(5):
        before = grey(SPEC, dtype, seed)["img"]
        after = before.copy()
        Unsharp(1.0, 2.0).draw(rng(seed))(after)
        amount = rng(seed).random()
        values = before[0].astype(float) / white
        soft = gaussian_filter(values, (0, 2, 2), mode="reflect")
        expected = (values + amount * (values - soft)).clip(0, 1)
        assert np.abs(after[0] / white - expected).max() < (1.6 / 255 if dtype == np.uint8 else 2e-3)


def amounts(augment: Sharpen, seed: int) -> Any:
    """The amount in each section, from how far a step overshoots."""
    step = np.zeros((1, 6, 40, 44), np.float32) + 0.45
    step[..., 22:] = 0.55
    image = run(augment, seed, SPEC, lambda _: {"img": step.copy()})["img"][0]
    return (image[:, 20, 22] - 0.55) / 0.1


def test_each_section_draws_its_amount() -> None:
    found = np.concatenate([amounts(Sharpen(1.0), seed) for seed in range(60)])
    top = found.max()
    assert np.quantile(found / top, [0, 0.25, 0.5, 0.75]) == pytest.approx([0, 0.25, 0.5, 0.75], abs=0.08)
    assert all(len(np.unique(amounts(Sharpen(1.0), seed).round(5))) == 6 for seed in range(5))
    assert all(len(np.unique(amounts(Sharpen(1.0, individual=False), seed).round(5))) == 1 for seed in range(5))


def test_some_sections_or_none() -> None:
    assert 1 <= np.count_nonzero(amounts(Sharpen(maxsec=2), 1) > 1e-4) <= 2
    assert np.mean([amounts(Sharpen(skip=0.4), s).max() < 1e-4 for s in range(200)]) == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize("bad", [{"amount": -1}, {"sigma": 0}])
def test_bad_arguments_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="got"):
        Sharpen(**bad)
