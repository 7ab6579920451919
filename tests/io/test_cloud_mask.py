"""A mask lies where its own offset and resolution say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem.io.cloud_mask import CloudMask
from deepem.io.files import imsave
from deepem.io.precomputed import CloudSource
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

pytest.importorskip("cloudvolume")


def volume(path, array, offset, voxel_size):
    imsave(array, path, attributes={"voxel_size_nm": voxel_size, "offset": offset})
    return path


def slowly(mask, offset, size, image, image_offset, image_size):
    """Voxel by voxel: whether any mask voxel above 0 overlaps it, in nanometres from corner to corner."""
    found = np.zeros(image, np.uint8)
    above = np.argwhere(mask > 0)
    low = (above + offset) * np.asarray(size)
    for voxel in np.ndindex(*image):
        begin = (np.asarray(voxel) + image_offset) * image_size
        end = begin + image_size
        found[voxel] = bool(((low + 1e-6 < end) & (low + size > begin + 1e-6)).all(1).any())
    return found


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_a_mask_of_any_place_and_whole_factor_covers_the_same_nanometres(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("mask")
    draw = lambda low, high: np.array(data.draw(st.tuples(*[st.integers(low, high)] * 3)))  # noqa: E731
    size, mask_size, offset, mask_offset = draw(1, 6), draw(1, 4), draw(-3, 3), draw(-3, 3)
    factors = np.array(data.draw(st.tuples(*[st.sampled_from([1 / 3, 1 / 2, 1, 2, 3])] * 3)))
    nm = np.array([40, 3.58, 3.58])
    mask = np.random.default_rng(0).integers(0, 2, mask_size, np.uint8)
    image = CloudSource(volume(f"file://{folder}/em", np.ones(size, np.uint8), offset, nm))
    laid = CloudMask(volume(f"file://{folder}/mask", mask, mask_offset, nm * factors), image)
    wanted = slowly(mask, mask_offset, nm * factors, size, offset, nm)
    np.testing.assert_array_equal(laid.read(Box((0, 0, 0), size))[0], wanted)
    begin = [data.draw(st.integers(0, n - 1)) for n in size]
    box = Box(begin, [data.draw(st.integers(b + 1, n)) for b, n in zip(begin, size, strict=True)])
    np.testing.assert_array_equal(laid.read(box)[0], wanted[box.slices()])


def test_a_mask_whose_voxels_do_not_fit_is_refused(tmp_path):
    image = CloudSource(volume(f"file://{tmp_path}/em", np.ones((4, 8, 8), np.uint8), (0, 0, 0), (40, 4, 4)))
    path = volume(f"file://{tmp_path}/mask", np.ones((4, 8, 8), np.uint8), (0, 0, 0), (40, 6, 6))
    with pytest.raises(InputError, match=r"mask: got a mask with voxels of \(40.0, 6.0, 6.0\) nm, wants those of"):
        CloudMask(path, image)


def test_the_level_nearest_to_the_image_is_taken(tmp_path):
    from deepem.io.pyramid import downsample

    image = CloudSource(volume(f"file://{tmp_path}/em", np.ones((4, 128, 128), np.uint8), (0, 0, 0), (40, 8, 8)))
    path = volume(f"file://{tmp_path}/mask", np.ones((4, 256, 256), np.uint8), (0, 0, 0), (40, 4, 4))
    downsample(path, 1)
    assert CloudMask(path, image).volume.mip == 1
