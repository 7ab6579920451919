"""Changes to a volume as it is read: the same voxels however it is read in pieces."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem.io.stored import Image
from deepem.io.views import Finer, Masked, Mirrored, Normalised, tables_of
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box


def volume(size=(4, 6, 5), seed=0):
    return Image("em", np.random.default_rng(seed).integers(0, 256, size, np.uint8))


@settings(deadline=None)
@given(st.data())
def test_a_mirrored_volume_is_numpys_reflection(data):
    size = data.draw(st.tuples(*[st.integers(1, 5)] * 3))
    before, after = (data.draw(st.tuples(*[st.integers(0, 9)] * 3)) for _ in range(2))
    source = volume(size)
    padded = np.pad(source.data, list(zip(before, after, strict=True)), mode="reflect")
    view = Mirrored(source, before, after)
    assert view.size == padded.shape
    assert view.origin == tuple(-b for b in before)
    begin = [data.draw(st.integers(0, n - 1)) for n in view.size]
    box = Box(begin, [data.draw(st.integers(b + 1, n)) for b, n in zip(begin, view.size, strict=True)])
    np.testing.assert_array_equal(view.read(box)[0], padded[box.slices()])


def test_padding_to_a_size_leaves_what_is_large_enough():
    view = Mirrored.to_size(volume((4, 6, 5)), (7, 6, 2))
    assert (view.size, view.origin) == ((7, 6, 5), (-1, 0, 0))


def test_sections_are_stretched_without_their_black_voxels():
    array = np.zeros((3, 1, 12), np.uint8)
    array[0, 0, 2:] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    array[1, 0] = 77
    source = Image("em", array)
    view = Normalised(source, tables_of(source, 0.1, 0.1, piece=(2, 1, 5)))
    found = view.read(Box((0, 0, 0), (3, 1, 12)))[0, :, 0]
    # the darkest tenth ends with 10 and the brightest begins after 90: 20 becomes 0, 90 becomes 255
    np.testing.assert_array_equal(found[0, 2:], np.rint(np.clip((np.arange(10, 101, 10) - 20) * 255 / 70, 0, 255)))
    assert (found[0, :2] == 0).all()
    assert (found[1] == 77).all(), "nothing between: left alone"
    assert (found[2] == 0).all()
    np.testing.assert_array_equal(view.read(Box((1, 0, 3), (2, 1, 5)))[0, 0, 0], [77, 77])


def test_white_counts_too():
    source = Image("em", np.full((1, 2, 2), 255, np.uint8))
    assert tables_of(source, 0.0, 0.0)[0, 0, 255] == 255


def test_contrast_is_for_bytes():
    with pytest.raises(InputError, match="em: got an image of float32, wants uint8"):
        tables_of(Image("em", np.zeros((2, 2, 2), np.float32)), 0.1, 0.1)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_mask_is_of_the_same_size_and_leaves_the_type(dtype):
    source, mask = volume(), Image("mask", (np.random.default_rng(1).random((4, 6, 5)) < 0.3).astype(np.uint8))
    if dtype == "float32":
        source = Image("em", (source.data / 255).astype(np.float32))
    box = Box((1, 2, 0), (3, 6, 4))
    found = Masked(source, mask).read(box)[0]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.where(mask.data > 0, 0, source.data)[box.slices()])
    with pytest.raises(InputError, match="size of em"):
        Masked(source, volume((4, 6, 6)))


def test_a_finer_view_repeats_voxels_however_it_is_read() -> None:
    array = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 5), np.uint8)
    finer = Finer(Image("it", array), (2, 1, 3))
    whole = array.repeat(2, 1).repeat(3, 3)
    assert finer.size == (6, 4, 15)
    for begin, end in (((0, 0, 0), (6, 4, 15)), ((1, 2, 4), (2, 4, 5)), ((3, 0, 1), (6, 1, 14))):
        box = Box(begin, end)
        np.testing.assert_array_equal(finer.read(box), whole[(slice(None), *box.slices())])
