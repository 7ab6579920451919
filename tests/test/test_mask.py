"""Fixed masks of a patch against recorded figures."""

import json

import numpy as np
import pytest

from deepem.test.mask import AffinityMask, PatchMask, make_mask
from deepem.utils.errors import InputError


def test_masks_are_as_recorded(shared):
    arrays = np.load(shared / "parity/inference.npz")
    cases = json.loads((shared / "parity/inference.json").read_text())["masks"]
    assert cases
    for case in cases:
        mask = make_mask(case["patch"], case["overlap"], case["edge"], case["bump"])
        assert mask.dtype == np.float32
        np.testing.assert_allclose(mask, np.nan_to_num(arrays[case["array"]]), rtol=1e-5, atol=1e-7)


def test_masks_of_neighbours_sum_to_one_inside_a_volume():
    mask = make_mask((4, 6, 5), (2, 3, 1))
    volume = np.zeros((8, 12, 13))
    for z, y, x in np.ndindex(3, 3, 3):
        volume[2 * z : 2 * z + 4, 3 * y : 3 * y + 6, 4 * x : 4 * x + 5] += mask
    np.testing.assert_allclose(volume[2:6, 3:9, 4:9], 1, atol=1e-6)


def test_a_patch_without_overlap_counts_fully():
    assert (make_mask((3, 4, 5), (0, 0, 0)) == 1).all()


def test_affinity_masks_are_one_per_edge():
    edges = [(0, 0, 1), (0, -1, 0)]
    masks = AffinityMask((4, 6, 6), (2, 3, 3), edges, "wu")
    assert masks.mask.shape == (2, 4, 6, 6)
    for mask, edge in zip(masks.mask, edges, strict=True):
        np.testing.assert_array_equal(mask, make_mask((4, 6, 6), (2, 3, 3), edge, "wu"))
    prediction = np.full((2, 4, 6, 6), 2, np.float32)
    np.testing.assert_array_equal(masks(prediction), 2 * masks.mask)
    assert (prediction == 2).all()


def test_a_patch_mask_has_one_channel():
    np.testing.assert_array_equal(PatchMask((4, 6, 6), (2, 3, 3)), make_mask((4, 6, 6), (2, 3, 3))[None])


@pytest.mark.parametrize(("overlap", "bump"), [((4, 1, 1), "zung"), ((-1, 1, 1), "zung"), ((1, 1, 1), "gauss")])
def test_what_makes_no_mask_is_refused(overlap, bump):
    with pytest.raises(InputError):
        make_mask((4, 4, 4), overlap, None, bump)
