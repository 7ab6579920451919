"""Boxes: how many, how large, where, and what is in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.transform.encoded import grey, rng, run
from scipy.ndimage import gaussian_filter

from deepem.data.transform import BlurBox, FillBox, NoiseBox, Spec, Track
from deepem.data.transform.noise import Noise
from deepem.data.transform.perturb import Blur

SPEC = Spec({"img": (10, 60, 64)}, ("img",))


def test_sides_places_and_number() -> None:
    box = FillBox((5, 25), margin=(1, 5, 6), density=0.3)
    shares = []
    for seed in range(300):
        begin, end = box.boxes((10, 60, 64), rng(seed))
        sides, centre = end - begin, (begin + (end - begin) // 2) + [5, 30, 32]
        assert sides[:, 1:].min() >= 5
        assert sides[:, 1:].max() <= 25
        assert sides[:, 0].min() >= 1
        assert sides[:, 0].max() <= 3
        assert (centre >= [1, 5, 6]).all()
        assert (centre < [9, 55, 58]).all()
        voxels = sides.prod(1)
        shares.append(voxels.sum() / (10 * 60 * 64))
        assert voxels[:-1].sum() <= 0.3 * 10 * 60 * 64
    assert min(shares) > 0
    assert np.mean(shares) == pytest.approx(0.15 + 0.013, abs=0.02)  # the last box reaches over the goal


def test_there_is_one_box_at_least() -> None:
    begin, _ = FillBox(density=0).boxes((4, 8, 8), rng())
    assert len(begin) == 1


@pytest.mark.parametrize("individual", [True, False])
def test_fill_values_are_drawn_per_box_or_once(individual: bool) -> None:
    image = run(
        FillBox((5, 9), individual=individual),
        2,
        SPEC,
        lambda r: {"img": np.full((1, *r.size["img"]), 2.0, np.float32)},
    )["img"]
    values = np.unique(image[image < 2])
    assert len(values) > 20 if individual else len(values) == 1


def test_boxes_of_smaller_images_are_the_same() -> None:
    spec = Spec({"img": (10, 60, 64), "small": (7, 31, 40)}, ("img", "small"))
    sample = run(FillBox((5, 25)), 1, spec, lambda r: {k: np.full((1, *s), 2.0, np.float32) for k, s in r.size.items()})
    assert np.array_equal(sample["small"][0], sample["img"][0, 2:9, 15:46, 12:52])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_noise_has_the_stated_moments_and_width(dtype: Any) -> None:
    white = 255 if dtype == np.uint8 else 1
    means, deviations, neighbours = [], [], []
    for seed in range(30):
        block = np.zeros((1, 2, 60, 60), dtype)
        Noise((2, 2), side=60).draw(rng(seed))(block)
        assert not np.array_equal(block[0, 0], block[0, 1])
        noise = block[0, 0] / white
        means.append(noise.mean())
        deviations.append(noise.std())
        a, b = noise[:, :-2].ravel(), noise[:, 2:].ravel()
        neighbours.append(np.corrcoef(a, b)[0, 1])
    assert np.mean(means) == pytest.approx(0.5, abs=0.03)
    assert np.mean(deviations) == pytest.approx(0.24, abs=0.03)  # clipping takes a little
    assert np.mean(neighbours) == pytest.approx(np.exp(-(2**2) / (4 * 2**2)), abs=0.05)


def test_noise_boxes_differ_and_leave_the_rest() -> None:
    image = run(
        NoiseBox((5, 25), density=0.2), 4, SPEC, lambda r: {"img": np.full((1, *r.size["img"]), 2.0, np.float32)}
    )["img"]
    share = (image < 2).mean()
    assert 0 < share < 0.3
    assert len(np.unique(image)) > 500


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_blur_is_a_gaussian_along_all_axes(dtype: Any) -> None:
    block = grey(Spec({"img": (4, 20, 24)}, ("img",)), dtype)["img"]
    expected = gaussian_filter(block[0].astype(float), 1.5, mode="reflect")
    Blur(1.5, random=False).draw(rng())(block)
    assert np.abs(block[0] - expected).max() < (1.6 if dtype == np.uint8 else 3e-3)


def test_blur_boxes_are_smoother_and_the_rest_stays() -> None:
    before = grey(SPEC)["img"]
    after = run(BlurBox((10, 20), density=0.3), 5, SPEC, grey)["img"]
    changed = before != after
    assert 0.02 < changed.mean() < 0.4
    assert after[changed].std() < before[changed].std()


@pytest.mark.parametrize(
    "bad", [{"dims": (5, 3)}, {"density": 2}, {"aniso": 0}, {"margin": (0, -1, 0)}, {"skip": -0.1}]
)
def test_bad_arguments_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="got"):
        FillBox(**bad)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_tracks_brighten_a_band_of_two_neighbours(dtype: Any) -> None:
    spec = Spec({"img": (8, 64, 200)}, ("img",))
    middles = []
    for seed in range(60):
        before = np.full((1, 8, 64, 200), 60 if dtype == np.uint8 else 0.25, dtype)
        after = run(Track(width=80, margin=10, sigma=(6, 5, 2)), seed, spec, lambda _: {"img": before.copy()})["img"]  # noqa: B023
        brighter = after > before
        assert (after >= before).all()
        first, second = np.flatnonzero(brighter.any((0, 2, 3)))
        assert second == first + 1
        assert not np.array_equal(after[0, first], after[0, second])
        cols = np.flatnonzero(brighter.any((0, 1, 2)))
        assert np.ptp(cols) < 80
        middles.append(cols.mean() / 200)
        inside = brighter[0, [first, second]][:, :, cols.min() + 15 : cols.max() - 15]
        assert 0.15 < inside.mean() < 1
    assert 0.2 < min(middles) < 0.35
    assert 0.65 < max(middles) < 0.8
