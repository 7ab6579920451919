"""Boxes: how many, how large, where, and what is in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.transform.encoded import grey, rng, run
from scipy.ndimage import gaussian_filter

from deepem.data.transform import BlurBox, CutBlur, FillBox, NoiseBox, Spec, Track
from deepem.data.transform.coarse import Coarse
from deepem.data.transform.noise import Noise
from deepem.data.transform.perturb import Blur
from deepem.data.transform.smallblur import SIDE, SmallBlur, blur

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


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [(1, 5, 5), (2, 25, 7), (3, 1, 16), (5, 20, 24), (2, 4, SIDE + 3)])
def test_small_blocks_are_blurred_as_scipys(size: Any, dtype: Any) -> None:
    """Parts of an image too, as boxes are; and as `Blur` does, but for its rounding in between."""
    white = 255 if dtype == np.uint8 else 1
    for sigma in (0.05, 0.3, 1.7, 5.0):
        image = np.concatenate([grey(Spec({"img": (6, 30, 70)}, ("img",)), dtype, s)["img"] for s in range(2)])
        z, y, x = size
        block = image[:, :z, 2 : 2 + y, 1 : 1 + x]
        before = block.copy()
        expected = gaussian_filter(before.astype(float), (0, sigma, sigma, sigma), mode="reflect")
        blur(block, sigma)
        assert np.abs(block - (before if sigma < 0.1 else expected)).max() <= (0.501 if dtype == np.uint8 else 1e-6)
        slow = before.copy()
        Blur(sigma, random=False).draw(rng())(slow)
        assert np.abs(block.astype(float) - slow).max() / white < 0.02


def test_widths_of_blur_boxes_are_even() -> None:
    """The deviation of a blurred point, along x, is the width of its box's filter."""
    change, widths = SmallBlur(4.0).draw_many(600, rng(2)), []
    for i in range(600):
        block = np.zeros((1, 1, 1, 63), np.float32)
        block[..., 31] = 1
        change(i, block)
        widths.append(np.sqrt((block[0, 0, 0] * (np.arange(63) - 31) ** 2).sum()))
    assert np.quantile(widths, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0, 1, 2, 3, 4], abs=0.3)
    assert SmallBlur(3.0, random=False).draw_many(2, rng())


def test_coarse_blocks_keep_means_over_squares_and_lose_what_is_finer() -> None:
    for isotropic in (False, True):
        block = grey(Spec({"img": (12, 36, 24)}, ("img",)), np.float32)["img"]
        before = block.copy()
        Coarse((3, 3), isotropic).draw(rng())(block)
        squares = [a[0].reshape(12, 12, 3, 8, 3).mean((2, 4)) for a in (before, block)]
        cubes = [a.reshape(4, 3, 12, 8).mean(1) for a in squares]
        one, two = cubes if isotropic else squares
        assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.85
        assert block.mean() == pytest.approx(before.mean(), abs=0.01)
        steps = [float(np.abs(np.diff(block[0], axis=axis)).mean()) for axis in range(3)]
        kept = [float(np.abs(np.diff(before[0], axis=axis)).mean()) for axis in range(3)]
        assert max(steps[1:]) < 0.2 * kept[1]
        assert (steps[0] < 0.1 * kept[0]) == isotropic


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_cut_blur_draws_a_factor_per_box_and_leaves_the_rest(dtype: Any) -> None:
    before = grey(SPEC, dtype)["img"]
    after = run(CutBlur((8, 20), density=0.3), 5, SPEC, lambda _: {"img": before.copy()})["img"]
    changed = before != after
    assert 0.02 < changed.mean() < 0.4
    assert after[changed].astype(float).std() < 0.7 * before[changed].astype(float).std()
    factors = []
    for seed in range(300):
        block = np.zeros((1, 1, 1, 240), np.float32)
        block[..., 100:] = 1  # between two columns of means it rises over one factor
        Coarse((2, 6)).draw(rng(seed))(block)
        factors.append(np.count_nonzero((block > 1e-3) & (block < 1 - 1e-3)))
    assert min(factors) >= 2
    assert 5 <= np.median(factors) <= 9
    assert len(set(factors)) > 5


@pytest.mark.parametrize("bad", [(0.5, 2), (3, 2), (2,)])
def test_bad_factors_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="factor"):
        CutBlur(factor=bad)


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
