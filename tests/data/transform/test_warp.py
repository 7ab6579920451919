"""Deformed sections, against the formula and against scipy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.transform.encoded import SPEC, STEP, encode, grey, ids, rng, run, where
from scipy.ndimage import map_coordinates

from deepem.data.transform import Compose, Label, Misalign, Spec, Warp

PLAIN: dict[str, Any] = {"rot": 0, "shear": 0, "scale": 1, "stretch": [0, 0, 0, 0], "twist": 0}
ONE = Spec({"img": (5, 24, 30), "seg": (5, 24, 30)}, ("img",), ("seg",))


def positions(spec: Spec, **fixed: Any) -> Any:
    """Where each voxel is read, (Z, Y, X, 2) relative to the centre, one voxel at a time."""
    depth, rows, cols = spec.size["img"]
    p = PLAIN | fixed
    left, right, top, bottom = p["stretch"]
    out = np.zeros((depth, rows, cols, 2))
    for z, v, u in np.ndindex(depth, rows, cols):
        y, x = v - rows // 2, u - cols // 2
        at_x, at_y = x / (cols / 2), y / (rows / 2)
        stretched_y = y * (1 + (left * (1 - at_x) + right * (1 + at_x)) / 2)
        stretched_x = x * (1 + (top * (1 - at_y) + bottom * (1 + at_y)) / 2)
        angle = np.deg2rad(p["rot"] + p["twist"] * (z - depth // 2) / (depth / 2))
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        shear = np.array([[1, 0], [np.tan(np.deg2rad(p["shear"])), 1]])
        out[z, v, u] = turn @ shear @ [stretched_y, stretched_x] / p["scale"]
    return out


CASES = [
    {},
    {"rot": 30},
    {"rot": -90},
    {"shear": 10},
    {"scale": 0.8},
    {"scale": 1.25},
    {"stretch": [0.2, 0, 0, 0]},
    {"stretch": [0.1, -0.2, 0.05, 0.15]},
    {"twist": 20},
    {"rot": 40, "shear": -5, "scale": 0.9, "stretch": [0.1, 0.05, -0.1, 0.02], "twist": 5},
]


@pytest.mark.parametrize("fixed", CASES)
def test_voxels_are_read_where_the_formula_says(fixed: dict[str, Any]) -> None:
    sample = run(Warp(**(PLAIN | fixed)), spec=ONE)
    expected = positions(ONE, **fixed)
    seen = (sample["img"][1:] - 0.5) / STEP
    assert np.abs(np.moveaxis(seen, 0, -1) - expected).max() < 0.05  # OpenCV reads at 1/32 of a voxel
    nearest = np.moveaxis(where(sample["seg"])[1:], 0, -1)
    assert np.abs(nearest - expected).max() <= 0.5 + 1e-4
    assert np.array_equal(where(sample["seg"])[0], where(encode(ONE)["seg"])[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_bilinear_and_labels_nearest_as_scipys(dtype: Any) -> None:
    warp = Warp(rot=25, shear=4, scale=0.85, stretch=[0.1, 0, 0, -0.1], twist=0)
    request, apply = warp.prepare(ONE, rng())
    given = grey(request, dtype)
    out = apply(dict(given))
    at = np.moveaxis(positions(ONE, rot=25, shear=4, scale=0.85, stretch=[0.1, 0, 0, -0.1])[0], -1, 0)
    at += np.reshape([n // 2 for n in request.size["img"][1:]], (2, 1, 1))
    for z in range(5):
        linear = map_coordinates(given["img"][0, z].astype(float), at, order=1)
        assert np.abs(out["img"][0, z] - linear).max() < (11 if dtype == np.uint8 else 0.04)
        assert np.abs(out["img"][0, z] - linear).mean() < (2 if dtype == np.uint8 else 0.008)
        nearest = given["seg"][0, z][tuple(np.rint(at).astype(int))]
        assert (out["seg"][0, z] == nearest).mean() > 0.995


def test_nearest_is_an_option_for_images() -> None:
    out = run(Warp(nearest=True, rot_max=40), 3, ONE)
    positions_seen = (out["img"] - 0.5) / STEP
    assert np.array_equal(positions_seen, where(out["seg"]))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64, np.uint16, bool, np.float64])
def test_labels_of_any_type_survive(dtype: Any) -> None:
    spec = Spec({"seg": (3, 16, 16)}, (), ("seg",))
    top = 2 if dtype is bool else np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 2**53

    def make(request: Spec) -> Any:
        return {
            "seg": rng()
            .integers(0, top, (1, *request.size["seg"]), np.uint64 if dtype == np.uint64 else np.int64)
            .astype(dtype)
        }

    request, apply = Warp(rot=30).prepare(spec, rng())
    given = make(request)
    out = apply(dict(given))["seg"]
    assert out.dtype == dtype
    assert np.isin(out, given["seg"]).all()
    assert len(np.unique(out)) > (1 if dtype is bool else 100)


def test_draws_keep_their_ranges() -> None:
    """Angle and scale read off the drawn fields: a rotation of 0 to 45 degrees, a scale between 1/1.1 and 1."""
    angles, scales = [], []
    for seed in range(300):
        (field,) = Warp(do_twist=False, rot_max=45, shear=0, stretch=[0] * 4).fields((5, 33, 33), rng(seed))
        dy, dx = field.y[16, 32] - field.y[16, 0], field.x[16, 32] - field.x[16, 0]
        angles.append(np.rad2deg(np.arctan2(dy, dx)))
        scales.append(32 / np.hypot(dy, dx))
    assert np.quantile(angles, [0, 0.5, 1]) == pytest.approx([0, 22.5, 45], abs=3)
    assert np.quantile(scales, [0, 0.5, 1]) == pytest.approx([0.9, 0.95, 1], abs=0.01)


def test_twisted_sections_stay_below_the_largest_rotation() -> None:
    spans = []
    for seed in range(200):
        fields = Warp(rot_max=20, shear=0, stretch=[0] * 4, scale=1).fields((9, 33, 33), rng(seed))
        angles = [np.rad2deg(np.arctan2(f.y[16, 32] - f.y[16, 0], f.x[16, 32] - f.x[16, 0])) for f in fields]
        assert max(np.abs(angles)) <= 20 + 1e-3
        assert np.allclose(np.diff(angles, 2), 0, atol=1e-3)
        spans.append(angles[-1] - angles[0])
    assert min(spans) < -25
    assert max(spans) > 25


def test_elastic_displacement_is_bounded_smooth_and_does_not_fold() -> None:
    for seed in range(50):
        warp = Warp(**PLAIN, elastic_max=5, elastic_grid=20)
        (field,) = warp.fields((4, 64, 70), rng(seed))
        (plain,) = Warp(**PLAIN).fields((4, 64, 70), rng(seed))
        dy, dx = field.y - plain.y, field.x - plain.x
        assert max(np.abs(dy).max(), np.abs(dx).max()) < 5 * 1.7  # a cubic may pass its points
        ((yy, yx), (xy, xx)) = np.gradient(field.y), np.gradient(field.x)
        assert (yy * xx - yx * xy).min() > 0
    assert np.abs(dy).max() > 2


def test_skip() -> None:
    requests = [Warp(skip=0.3).prepare(SPEC, rng(s))[0] for s in range(500)]
    assert np.mean([r is SPEC for r in requests]) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize(
    "bad", [{"scale_max": 2}, {"scale": 0}, {"stretch_max": 0.6}, {"stretch": [0, 0]}, {"elastic_max": 20}, {"skip": 2}]
)
def test_bad_arguments_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="got"):
        Warp(**bad)


def test_composes_with_label_before_and_after() -> None:
    for vec in (False, True):
        for parts in ([Label(vec), Warp(), Misalign((2, 5))], [Misalign((2, 5)), Warp(), Label(vec)]):
            sample = run(Compose(parts), spec=SPEC)
            for key in ("seg", "seg_split") if vec else ("seg",):
                assert sample[key].shape == (1, *SPEC.size["seg"])
            if vec:
                assert sample["seg"].min() >= ids(-10, -100, -100)
