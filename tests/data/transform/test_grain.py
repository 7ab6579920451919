"""Noise and tones of sections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.transform.encoded import rng, run

from deepem.data.transform import ContrastStep, GaussianNoise, HistogramShift, PoissonNoise, SaltNoise, Spec
from deepem.data.transform.grain import Gaussian, Shot
from deepem.data.transform.tone import Curve

SPEC = Spec({"img": (8, 64, 64)}, ("img",))
DTYPES = pytest.mark.parametrize("dtype", [np.uint8, np.float32])


def flat(value: float, dtype: Any) -> Any:
    return lambda request: {
        "img": np.full((1, *request.size["img"]), round(value * 255) if dtype == np.uint8 else value, dtype)
    }


def deviations(augment: Any, value: float, dtype: Any, seeds: int = 40) -> Any:
    """(sections of all samples): the deviation of a flat section, in grey values."""
    white = 255 if dtype == np.uint8 else 1
    return np.concatenate(
        [run(augment, s, SPEC, flat(value, dtype))["img"][0].std((1, 2)) / white for s in range(seeds)]
    )


@DTYPES
def test_gaussian_deviation_is_uniform_per_section(dtype: Any) -> None:
    found = deviations(GaussianNoise(0.1), 0.5, dtype)
    assert np.quantile(found, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0, 0.025, 0.05, 0.075, 0.1], abs=0.008)
    assert len(np.unique(found.round(5))) > 200


@DTYPES
def test_gaussian_noise_has_no_bias_and_no_pattern(dtype: Any) -> None:
    block = flat(0.5, dtype)(SPEC)["img"]
    Gaussian(0.2).draw(rng(1))(block)
    noise = block[0] / (255 if dtype == np.uint8 else 1) - 0.5
    assert abs(noise.mean()) < 2e-3
    for axis in range(3):
        a, b = np.delete(noise, 0, axis), np.delete(noise, -1, axis)
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02


def test_shot_noise_is_poissons() -> None:
    """Against numpy's Poisson numbers: mean and deviation, at each brightness."""
    for value in (0.1, 0.4, 0.8):
        block = flat(value, np.float32)(SPEC)["img"]
        Shot((200, 200)).draw(rng(2))(block)
        counted = rng(3).poisson(200 * value, 40000) / 200
        assert block.mean() == pytest.approx(counted.mean(), abs=2e-3)
        assert block.std() == pytest.approx(counted.std(), rel=0.03)


def test_dose_is_even_in_its_logarithm() -> None:
    doses = 0.4 / deviations(PoissonNoise((20, 2000)), 0.4, np.float32) ** 2
    assert np.quantile(np.log10(doses), [0.05, 0.5, 0.95]) == pytest.approx([1.4, 2.3, 3.2], abs=0.15)


@DTYPES
def test_salt_is_black_or_white_and_as_dense_as_drawn(dtype: Any) -> None:
    white = 255 if dtype == np.uint8 else 1
    shares = []
    for seed in range(40):
        image = run(SaltNoise(0.2), seed, SPEC, flat(0.5, dtype))["img"][0]
        black, bright = (image == 0).mean((1, 2)), (image == white).mean((1, 2))
        assert len(np.unique(image)) <= 3
        shares += (black + bright).tolist()
        assert np.abs(black - bright).max() < 0.03
    assert np.quantile(shares, [0, 0.5, 1]) == pytest.approx([0, 0.1, 0.2], abs=0.02)


@DTYPES
def test_curves_rise_and_keep_black_and_white(dtype: Any) -> None:
    white = 255 if dtype == np.uint8 else 1
    ramp = np.linspace(0, 1, 256).reshape(1, 1, 16, 16)
    ramp = np.rint(ramp * 255).astype(np.uint8) if dtype == np.uint8 else ramp.astype(np.float32)
    bends = []
    for seed in range(50):
        out = ramp.copy()
        Curve().draw(rng(seed))(out)
        assert out.ravel()[0] == 0
        assert out.ravel()[-1] == pytest.approx(white)
        assert (np.diff(out.ravel().astype(float)) >= 0).all()
        bends.append(np.abs(out.astype(float) - ramp).max() / white)
    assert min(bends) > 0.01
    assert 0.1 < max(bends) < 0.5


def test_sections_have_curves_of_their_own() -> None:
    image = run(HistogramShift(), 0, SPEC, flat(0.4, np.float32))["img"][0]
    assert len(np.unique(image)) == 8
    image = run(HistogramShift(maxsec=2), 0, SPEC, flat(0.4, np.float32))["img"][0]
    assert len(np.unique(image)) in (2, 3)


def test_a_step_parts_the_patch_in_two() -> None:
    at = set()
    for seed in range(150):
        image = run(ContrastStep(), seed, SPEC, flat(0.4, np.float32))["img"][0]
        (steps,) = np.nonzero(np.diff(image[:, 0, 0]))
        assert len(steps) == 1
        assert image[0, 0, 0] == np.float32(0.4)
        assert (image == image[:, :1, :1]).all()
        at.add(int(steps[0]))
    assert at == set(range(7))


@pytest.mark.parametrize(
    ("cls", "bad"),
    [
        (GaussianNoise, {"sigma": -1}),
        (PoissonNoise, {"dose": (0, 5)}),
        (SaltNoise, {"share": 2}),
        (HistogramShift, {"knots": 1}),
    ],
)
def test_bad_arguments_are_refused(cls: Any, bad: Any) -> None:
    with pytest.raises(ValueError, match="got"):
        cls(**bad)
