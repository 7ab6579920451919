"""Copied instances: which, where to, and what image, ids and classes are there afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.transform.encoded import rng
from scipy.ndimage import distance_transform_edt

from deepem.data.transform import CopyPaste, Label, Sample, Spec

SIZE = (6, 80, 90)
SPEC = Spec({key: SIZE for key in ("img", "seg", "mit", "msk")}, ("img",), ("seg",))
WHOLE, CUT, SMALL, CELL = 7, 8, 9, 3


def tissue(dtype: Any = np.uint8, id_type: Any = np.int64, gap: bool = False) -> Sample:
    """One cell, 3, everywhere; in it an ellipse that is whole, one that the patch cuts, and a splinter.

    The whole one is an axon through all sections, asymmetric, with a bright mitochondrion, and dark membranes.
    """
    z, y, x = np.meshgrid(*[np.arange(n) for n in SIZE], indexing="ij")
    seg = np.full(SIZE, CELL)
    seg[((y - 30) / 10) ** 2 + ((x - 30 - z) / 15) ** 2 < 1] = WHOLE
    seg[(y - 60) ** 2 + (x - 89) ** 2 < 200] = CUT
    seg[:, 70:72, 10:40] = SMALL
    image = 100 + seg * 2
    inside = seg == WHOLE
    wall = distance_transform_edt(~inside, sampling=(10, 1, 1))
    image[(wall > 0) & (wall <= 2)] = 20
    mit = inside & (x > 35) & (x < 40) & (y > 25) & (y < 32)
    image[mit] = 180
    if gap:
        seg[(wall > 0) & (wall <= 2)] = 0
    values = image.astype(np.uint8) if dtype == np.uint8 else (image / 255).astype(np.float32)
    mask = np.ones(SIZE, np.uint8)
    mask[mit | ((wall > 3.6) & (wall < 4.5))] = 0
    arrays = {"img": values, "seg": seg.astype(id_type), "mit": mit.astype(np.uint8), "msk": mask}
    return {key: array[None] for key, array in arrays.items()}


def paste(seed: int, sample: Sample | None = None, spec: Spec = SPEC, **arguments: Any) -> Sample:
    request, apply = CopyPaste(**{"number": 1, "skip": 0, "largest": 0.2} | arguments).prepare(spec, rng(seed))
    assert request is spec
    return apply(tissue() if sample is None else sample)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("gap", [False, True])
def test_inside_is_the_instance_outside_what_was_there_and_the_membrane_between(dtype: Any, gap: bool) -> None:
    before = tissue(dtype, gap=gap)
    shapes = set()
    for seed in range(12):
        after = paste(seed, tissue(dtype, gap=gap))
        ids = after["seg"][0]
        copy = ids == CUT + 2
        assert np.count_nonzero(copy) == np.count_nonzero(before["seg"] == WHOLE)
        changed = np.argwhere(copy)
        shapes.add(tuple(np.ptp(changed, 0).tolist()))
        away = distance_transform_edt(~copy, sampling=(10, 1, 1))
        wall, white = (away > 0) & (away <= 2), 255 if dtype == np.float32 else 1
        image = after["img"][0] * white
        assert np.allclose(np.sort(image[copy]), np.sort(before["img"][before["seg"] == WHOLE] * white), atol=1e-3)
        assert np.allclose(image[wall], 20, atol=1e-3)
        assert all(np.array_equal(after[k][0][away > 5], before[k][0][away > 5]) for k in before)
        assert all(np.array_equal(after[k][0][away > 3.6], before[k][0][away > 3.6]) for k in ("mit", "msk"))
        rim = (away > 0) & (away <= 5)
        assert np.array_equal(ids[rim & ~wall], before["seg"][0][rim & ~wall])
        assert (ids[wall] == 0).all() if gap else np.array_equal(ids[wall], before["seg"][0][wall])
        mit = after["mit"][0][copy]
        assert np.array_equal(np.sort(mit), np.sort(before["mit"][before["seg"] == WHOLE]))
        assert np.array_equal(after["msk"][0][copy], 1 - mit)
        assert np.array_equal(image[copy] == 180, mit == 1)
    assert len(shapes) == 2  # as it was, or with y and x exchanged


def test_places_and_poses_are_drawn() -> None:
    middles, poses = [], set()
    for seed in range(150):
        after = paste(seed)
        copy = after["seg"][0] == CUT + 2
        where, mit = np.argwhere(copy), np.argwhere(copy & (after["mit"][0] > 0))
        middles.append(where.mean(0)[1:])
        poses.add((np.ptp(where[:, 1]) > np.ptp(where[:, 2]), *np.sign((mit.mean(0) - where.mean(0))[1:]).tolist()))
    assert len(poses) == 8
    assert np.ptp(middles, axis=0).min() > 30


def test_only_whole_ones_that_are_neither_splinters_nor_too_large_are_copied() -> None:
    for seed in range(10):
        lacking = tissue()
        lacking["seg"][lacking["seg"] == WHOLE] = CELL
        assert set(np.unique(paste(seed, lacking, number=5)["seg"])) == {CELL, CUT, SMALL}
    for arguments in ({"radius": 11}, {"largest": 0.01}, {"rim": 16}):
        before, after = tissue(), paste(3, **arguments)
        assert all(np.array_equal(after[k], before[k]) for k in before)


def test_number_is_uniform_and_skip_is_how_often_nothing_happens() -> None:
    copies = [int(paste(seed, number=3)["seg"].max()) - SMALL for seed in range(150)]
    assert np.bincount(copies)[1:] / 150 == pytest.approx([1 / 3] * 3, abs=0.1)
    requests = [CopyPaste(skip=0.3, number=1).prepare(SPEC, rng(s))[1].__name__ for s in range(400)]
    assert np.mean([name == "keep" for name in requests]) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("top", [2**53 + 1, 2**63 - 1])
def test_new_ids_fit_their_type(top: int) -> None:
    sample = tissue()
    sample["seg"][sample["seg"] == CUT] = top
    after = paste(1, sample)["seg"]
    assert after.dtype == np.int64
    new = 1 if top == 2**63 - 1 else top + 1
    assert np.unique(after).tolist() == sorted([CELL, WHOLE, SMALL, top, new])


def test_pieces_and_arrays_of_other_sizes() -> None:
    spec = Spec({"img": (8, 84, 94), "seg": SIZE, "mit": (5, 79, 88), "msk": SIZE}, ("img",), ("seg",))
    sample = tissue()
    sample["img"] = np.pad(sample["img"], [(0, 0), (1, 1), (2, 2), (2, 2)], mode="edge")
    sample["mit"] = sample["mit"][:, 1:6, 1:80, 1:89]
    for array in sample.values():
        array.flags.writeable = False
    _, apply = Label(vec=True).prepare(spec, rng())
    after = paste(2, apply(sample), spec)
    assert {k: a.shape[1:] for k, a in after.items()} == {**spec.size, "seg_split": SIZE}
    copy = after["seg"][0] == CUT + 2
    assert copy.any()
    assert len(np.unique(after["seg_split"][0][copy])) == 1
    bright, mit = after["img"][0, 2:7, 3:82, 3:91] == 180, after["mit"][0] > 0
    assert np.array_equal(bright, mit)
    assert np.count_nonzero(mit & copy[1:6, 1:80, 1:89])


@pytest.mark.parametrize("bad", [{"number": 0}, {"radius": 0}, {"rim": -1}, {"aniso": 0}, {"largest": 2}, {"skip": 2}])
def test_bad_arguments_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="got"):
        CopyPaste(**bad)
