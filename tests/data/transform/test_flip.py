"""Mirrored and exchanged axes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from data.transform.encoded import SPEC, rng, run, where

from deepem.data.transform import Flip, FlipRotate, Spec, Transpose

EVEN = Spec({"img": (4, 6, 8), "seg": (4, 6, 8)}, ("img",), ("seg",))


@pytest.mark.parametrize("axis", [-3, -2, -1, 1, 2, 3])
def test_flip_is_numpys(axis: int) -> None:
    plain, flipped = run(Flip(axis, 0), spec=EVEN), run(Flip(axis, 1), spec=EVEN)
    for key in plain:
        assert np.array_equal(flipped[key], np.flip(plain[key], axis))


@pytest.mark.parametrize("axis", [-4, 0, 4])
def test_channels_are_not_flipped(axis: int) -> None:
    with pytest.raises(ValueError, match="axis"):
        Flip(axis)


def test_mirror_of_odd_and_even_arrays_is_about_one_voxel() -> None:
    sample = run(Flip(-1, 1))
    for z, y, x in [where(sample["seg"])]:
        assert np.array_equal(x[0, 0], -(np.arange(36) - 18))
        assert np.array_equal(y[0, :, 0], np.arange(33) - 16)
        assert np.array_equal(z[:, 0, 0], np.arange(8) - 4)


def test_transpose_is_numpys_and_reverses_space_by_default() -> None:
    plain = run(Transpose(prob=0), spec=Spec({"seg": (4, 6, 8)}, (), ("seg",)))["seg"]
    for axes, size in (((0, 1, 3, 2), (4, 8, 6)), ((0, 2, 3, 1), (6, 8, 4)), (None, (8, 6, 4))):
        out = run(Transpose(axes, 1), spec=Spec({"seg": size}, (), ("seg",)))["seg"]
        back = Transpose(axes, 1).axes
        assert back is not None
        assert np.array_equal(out, plain.transpose(back))


@pytest.mark.parametrize("axes", [(1, 0, 2, 3), (0, 1, 2), (0, 1, 1, 2)])
def test_bad_axes_are_refused(axes: Any) -> None:
    with pytest.raises(ValueError, match="axes"):
        Transpose(axes)


def test_a_flip_undoes_itself() -> None:
    once = run(Flip(-1, 1), spec=EVEN)
    _, again = Flip(-1, 1).prepare(EVEN, rng())
    assert np.array_equal(again(once)["seg"], run(Flip(-1, 0), spec=EVEN)["seg"])


def test_sixteen_poses_are_equally_likely() -> None:
    seen: Counter[tuple[int, ...]] = Counter()
    for seed in range(1600):
        z, y, x = where(run(FlipRotate(), seed, Spec({"seg": (3, 3, 3)}, (), ("seg",)))["seg"])
        seen[tuple(int(v) for v in (z[0, 0, 0], y[0, 0, 0], x[0, 0, 0], y[0, 1, 0] == y[0, 0, 0]))] += 1
    assert len(seen) == 16
    assert max(seen.values()) < 160
    assert min(seen.values()) > 50


def test_sizes_are_exchanged_before() -> None:
    request, _ = Transpose([0, 1, 3, 2], 1).prepare(SPEC, rng())
    assert request.size == {k: (z, x, y) for k, (z, y, x) in SPEC.size.items()}


def test_isotropic_volumes_have_48_poses() -> None:
    seen: Counter[bytes] = Counter()
    spec = Spec({"seg": (3, 3, 3)}, (), ("seg",))
    for seed in range(2400):
        seen[run(FlipRotate(isotropic=True), seed, spec)["seg"].tobytes()] += 1
    assert len(seen) == 48
    assert max(seen.values()) < 90
    assert min(seen.values()) > 20
