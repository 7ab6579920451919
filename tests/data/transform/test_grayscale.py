"""Contrast, brightness and gamma against the formula, voxel by voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.transform.encoded import grey, rng, run

from deepem.data.transform import Grayscale2D, Grayscale3D, GrayscaleMixed, MixedGrayscale2D, PartialGrayscale2D, Spec
from deepem.data.transform.perturb import Grayscale

SPEC = Spec({"img": (6, 16, 16)}, ("img",))


def slow(values: Any, u: float, v: float, w: float, contrast: float, brightness: float) -> Any:
    out = values.astype(float) * (1 + (u - 0.5) * contrast) + (v - 0.5) * brightness
    return np.clip(out, 0, 1) ** (2 ** (2 * w - 1))


@pytest.mark.parametrize("seed", range(8))
def test_values_follow_the_formula(seed: int) -> None:
    draws = rng(seed).random(3)
    block = grey(SPEC, np.float32, seed)["img"]
    expected = slow(block, *draws, 0.5, 0.4)
    Grayscale(0.5, 0.4).draw(rng(seed))(block)
    assert np.abs(block - expected).max() < 1e-5


@pytest.mark.parametrize("seed", range(8))
def test_bytes_are_the_rounded_floats(seed: int) -> None:
    bytes_ = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    floats = bytes_ / 255
    change = Grayscale(0.5, 0.5).draw(rng(seed))
    change(bytes_)
    change(floats)
    assert np.abs(bytes_ - floats * 255).max() <= 0.5 + 1e-9


def test_parts_of_larger_arrays_are_changed_in_place() -> None:
    whole = np.full((2, 3, 20, 20), 100, np.uint8)
    Grayscale(0.5, 0.5).draw(rng(3))(whole[:, 1:2, 5:9, 7:12])
    changed = whole != 100
    assert changed[:, 1, 5:9, 7:12].all()
    assert changed.sum() == 2 * 4 * 5


def test_draws_cover_their_ranges() -> None:
    """A white and a black voxel tell contrast, brightness and gamma apart where nothing is clipped."""
    contrasts = []
    for seed in range(500):
        u, v, w = rng(seed).random(3)
        ends = np.array([0.4, 0.6]).reshape(1, 1, 1, 2)
        Grayscale(0.3, 0.3).draw(rng(seed))(ends)
        low, high = ends.ravel() ** (1 / 2 ** (2 * w - 1))
        contrasts.append((high - low) / 0.2)
        assert (high + low) / 2 == pytest.approx(0.5 * (1 + (u - 0.5) * 0.3) + (v - 0.5) * 0.3)
    assert np.quantile(contrasts, [0, 0.5, 1]) == pytest.approx([0.85, 1, 1.15], abs=0.025)


def sections_changed_alike(augment: Any, seed: int) -> int:
    ramp = {"img": np.tile(np.linspace(0.2, 0.8, 256, dtype=np.float32).reshape(1, 1, 16, 16), (1, 6, 1, 1))}
    out = run(augment, seed, SPEC, lambda _: {"img": ramp["img"].copy()})["img"]
    return len(np.unique(out.reshape(6, -1), axis=0)) if not np.array_equal(out, ramp["img"]) else 0


def test_3d_changes_all_sections_alike_and_2d_each_on_its_own() -> None:
    assert {sections_changed_alike(Grayscale3D(skip=0), s) for s in range(20)} == {1}
    assert {sections_changed_alike(Grayscale2D(), s) for s in range(20)} == {6}
    assert {sections_changed_alike(Grayscale2D(maxsec=2), s) for s in range(20)} == {2, 3}


def test_mixed_is_either_and_skips() -> None:
    kinds = [sections_changed_alike(GrayscaleMixed(skip=0.3), s) for s in range(1500)]
    for kind, share in ((0, 0.3), (1, 0.35), (6, 0.35)):
        assert np.mean(np.array(kinds) == kind) == pytest.approx(share, abs=0.06)


def test_partial_and_mixed_need_sections() -> None:
    for cls in (PartialGrayscale2D, MixedGrayscale2D):
        with pytest.raises(ValueError, match="maxsec"):
            cls()
