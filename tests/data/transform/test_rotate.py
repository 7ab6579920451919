"""Rotated arrays, against numpy and scipy, and the rotations that are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.transform.encoded import STEP, encode, grey, rng, run, where
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from deepem.data.provider import DataProvider, Dataset
from deepem.data.transform import Compose, FlipRotate, Rotate, Sample, Spec
from deepem.data.transform.rotate import rotate
from deepem.utils.crop import centre_crop
from deepem.utils.edges import edge_views

BOTH = Spec({"img": (9, 24, 31), "seg": (8, 21, 30)}, ("img",), ("seg",))


def turn(axis: int, degrees: float) -> Any:
    """Where a result rotated by some degrees about an axis is read."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.eye(3)
    a, b = [i for i in range(3) if i != axis]
    matrix[a, a] = matrix[b, b] = c
    matrix[a, b], matrix[b, a] = s, -s
    return matrix


def scipys(volume: Any, matrix: Any, size: Any, order: int) -> Any:
    """The same from scipy, about the centre voxels."""
    centre = np.array([n // 2 for n in volume.shape])
    offset = centre - matrix @ [n // 2 for n in size]
    return affine_transform(volume, matrix, offset, size, order=order, prefilter=False, mode="nearest")


@pytest.mark.parametrize("augment", [Rotate(), Rotate(20, (10, 1, 1)), Rotate(scale=(0.8, 1.3))])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_are_trilinear_and_labels_nearest_as_scipys(augment: Rotate, dtype: Any) -> None:
    for seed in range(3):
        matrix = augment.matrix(rng(seed))
        request, apply = rotate(BOTH, matrix)
        read = grey(request, dtype)
        out = apply(dict(read))
        exact = scipys(read["img"][0].astype(np.float64), matrix, BOTH.size["img"], 1)
        assert np.abs(out["img"][0] - exact).max() < (0.5001 if dtype == np.uint8 else 1e-6)
        assert np.array_equal(out["seg"][0], scipys(read["seg"][0], matrix, BOTH.size["seg"], 0))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("sizes", [(9, 9, 9), (6, 11, 8)])
def test_right_angles_are_numpys(axis: int, quarters: int, sizes: Any) -> None:
    spec = Spec({"img": sizes, "seg": sizes}, ("img",), ("seg",))
    request, apply = rotate(spec, turn(axis, 90 * quarters))
    cube = Spec({key: (13, 13, 13) for key in ("img", "seg")}, ("img",), ("seg",))
    whole = encode(cube)
    read = {key: centre_crop(whole[key], request.size[key]) for key in whole}
    plane = [a + 1 for a in range(3) if a != axis]
    for key, out in apply(dict(read)).items():
        assert np.array_equal(out, centre_crop(np.rot90(whole[key], quarters, (plane[0], plane[1])), sizes))


def test_voxels_are_read_where_the_matrix_says() -> None:
    for seed in range(5):
        matrix = Rotate(scale=(0.8, 1.2)).matrix(rng(seed))
        request, apply = rotate(BOTH, matrix)
        out = apply(encode(request))
        for key, seen in (("img", (out["img"] - 0.5) / STEP), ("seg", where(out["seg"]))):
            offsets = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in BOTH.size[key]], indexing="ij"))
            expected = np.einsum("ij,jzyx->izyx", matrix, offsets)
            assert np.abs(seen - expected).max() <= (1e-4 if key == "img" else 0.5 + 1e-9)


def test_anisotropic_tissue_turns_in_its_own_space() -> None:
    """Voxels four times as high as wide: between millimetres the matrix is a rotation, between voxels it is not."""
    augment = Rotate(voxel_size=(4, 1, 1))
    matrix = augment.matrix(rng(3))
    side = np.diag([4.0, 1, 1])
    physical = side @ matrix @ np.linalg.inv(side)
    assert np.allclose(physical @ physical.T, np.eye(3))
    assert np.linalg.det(physical) == pytest.approx(1)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.fixed_dictionaries({k: st.tuples(*[st.integers(1, 14)] * 3) for k in ("img", "seg", "msk")}),
    seed=st.integers(0, 10**6),
    degrees=st.sampled_from([None, 1, 45, 180]),
)
def test_request_is_sufficient_and_minimal(sizes: Any, seed: int, degrees: float | None) -> None:
    """Every voxel that is read is inside, and with one voxel less on any axis one would not be."""
    spec = Spec(sizes, ("img",), ("seg",))
    matrix = Rotate(degrees).matrix(rng(seed))
    request, apply = rotate(spec, matrix)
    assert {k: a.shape[1:] for k, a in apply(encode(request)).items()} == sizes
    for key, size in sizes.items():
        offsets = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in size], indexing="ij")).reshape(3, -1)
        at = np.round(matrix, 12) @ offsets
        low, high = (np.floor(at + 1e-9), np.ceil(at - 1e-9)) if key == "img" else (np.rint(at), np.rint(at))
        for axis, n in enumerate(request.size[key]):
            assert low[axis].min() >= -(n // 2)
            assert high[axis].max() <= n - n // 2 - 1
            less = n - 1
            assert low[axis].min() < -(less // 2) or high[axis].max() > less - less // 2 - 1


def rotations(augment: Rotate, count: int) -> Any:
    generator = rng(5)
    return np.stack([augment.matrix(generator) for _ in range(count)])


def test_all_rotations_are_equally_likely() -> None:
    """Haar measure: the mean matrix is 0, squares of entries are 1/3, the trace has mean 0 and variance 1."""
    drawn = rotations(Rotate(), 4000)
    assert np.allclose(drawn @ drawn.swapaxes(1, 2), np.eye(3))
    assert np.allclose(np.linalg.det(drawn), 1)
    assert np.abs(drawn.mean(0)).max() < 0.04
    assert np.allclose((drawn**2).mean(0), 1 / 3, atol=0.03)
    trace = np.trace(drawn, axis1=1, axis2=2)
    assert trace.mean() == pytest.approx(0, abs=0.06)
    assert trace.var() == pytest.approx(1, abs=0.06)


def test_small_rotations_have_any_axis_and_even_angles() -> None:
    drawn = rotations(Rotate(30), 3000)
    angles = np.rad2deg(np.arccos(((np.trace(drawn, axis1=1, axis2=2) - 1) / 2).clip(-1, 1)))
    assert np.quantile(angles, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0, 7.5, 15, 22.5, 30], abs=1)
    skew = np.stack([drawn[:, 2, 1] - drawn[:, 1, 2], drawn[:, 0, 2] - drawn[:, 2, 0], drawn[:, 1, 0] - drawn[:, 0, 1]])
    axes = skew / np.linalg.norm(skew, axis=0)
    assert np.abs(axes.mean(1)).max() < 0.05
    assert np.allclose((axes**2).mean(1), 1 / 3, atol=0.03)


def test_scale_is_even_in_its_logarithm_and_skip_is_how_often_nothing_happens() -> None:
    scales = -np.log(np.linalg.det(rotations(Rotate(scale=(0.5, 2)), 2000))) / 3 / np.log(2)
    assert np.quantile(scales, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([-1, -0.5, 0, 0.5, 1], abs=0.08)
    requests = [Rotate(skip=0.3).prepare(BOTH, rng(s))[0] for s in range(500)]
    assert np.mean([r is BOTH for r in requests]) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.uint16, bool, np.float32])
def test_labels_of_any_type_survive(dtype: Any) -> None:
    spec = Spec({"seg": (6, 16, 16)}, (), ("seg",))
    request, apply = Rotate().prepare(spec, rng())
    size = (1, *request.size["seg"])
    whole = (
        rng().integers(2**53, 2**62, size)
        if dtype in (np.int64, np.uint64)
        else rng().integers(0, 2 if dtype is bool else 60000, size)
    )
    read = whole.astype(dtype)
    out = apply({"seg": read})["seg"]
    assert out.dtype == dtype
    assert np.isin(out, read).all()
    assert len(np.unique(out)) > (1 if dtype is bool else 100)


def test_layout_in_memory_makes_no_difference() -> None:
    """Copies, parts of volumes, mirrored and exchanged axes, several channels, one value throughout."""
    request, apply = rotate(BOTH, Rotate().matrix(rng(2)))
    plain = {k: np.concatenate([a, a[:, ::-1]]) for k, a in grey(request).items()}
    expected = apply(dict(plain))
    for make in (
        lambda a: np.pad(a, [(0, 0), (3, 2), (1, 5), (2, 2)])[:, 3:-2, 1:-5, 2:-2],
        lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
        lambda a: np.ascontiguousarray(a.swapaxes(1, 3)).swapaxes(1, 3),
        np.asfortranarray,
    ):
        out = apply({k: make(a) for k, a in plain.items()})
        assert all(np.array_equal(out[k], expected[k]) for k in expected)
    flat = apply({k: np.broadcast_to(a.dtype.type(7), a.shape) for k, a in plain.items()})
    assert all((a == 7).all() for a in flat.values())


def test_affinities_follow_the_rotated_tissue() -> None:
    """Sheets along x, turned by a quarter in their plane, part voxels that are neighbours in x instead of in y."""
    spec = Spec({"seg": (5, 15, 15)}, (), ("seg",))
    request, apply = rotate(spec, turn(0, 90))
    sheets = np.broadcast_to(np.arange(request.size["seg"][1])[:, None] // 3 + 1, (1, *request.size["seg"]))
    before, after = sheets[0], apply({"seg": sheets})["seg"][0]
    share = {
        edge: [float(np.mean(np.equal(*edge_views(ids, edge)))) for ids in (before, after)]
        for edge in ((0, 1, 0), (0, 0, 1))
    }
    assert share[0, 1, 0][0] == share[0, 0, 1][1] < 1
    assert share[0, 0, 1][0] == share[0, 1, 0][1] == 1


def test_small_volumes_get_the_rotations_that_fit() -> None:
    provider = DataProvider({"img": (10, 10, 10), "seg": (10, 10, 10)})
    dataset = Dataset(tag="v")
    z, y, x = np.meshgrid(*[np.arange(17)] * 3, indexing="ij")
    dataset.add_data("img", (z * 5).astype(np.uint8))
    dataset.add_data("seg", (z * 289 + y * 17 + x).astype(np.int64))
    provider.add_dataset(dataset)
    provider.set_imgs(["img"])
    provider.set_segs(["seg"])
    provider.set_augment(Compose([Rotate(), FlipRotate(isotropic=True)]))
    for seed in range(10):
        one, two = provider.random_sample(rng(seed)), provider.random_sample(rng(seed))
        assert all(np.array_equal(one[k], two[k]) for k in one)
        assert np.abs(one["img"] / 5 - one["seg"] // 289).max() <= 0.75


@pytest.mark.parametrize(
    "bad", [{"max_degrees": 0}, {"max_degrees": 200}, {"voxel_size": (0, 1, 1)}, {"scale": (2, 1)}, {"skip": -1}]
)
def test_bad_arguments_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="got"):
        Rotate(**bad)


def test_arguments_are_left_as_they_were() -> None:
    request, apply = Rotate().prepare(BOTH, rng(4))
    read: Sample = grey(request)
    kept = {k: a.copy() for k, a in read.items()}
    apply(dict(read))
    assert all(np.array_equal(read[k], kept[k]) for k in read)
    assert run(Rotate(), 4, BOTH, grey).keys() == kept.keys()
