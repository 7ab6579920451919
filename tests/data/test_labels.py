"""Labels and masks that say something else than they seem to: told, mended or refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deepem.data.labels import as_classes, as_ids, as_mask
from deepem.utils.errors import InputError

SHAPE = (2, 4, 5)


def holding(dtype: Any, *values: Any) -> Any:
    """A volume of zeros with these values in its first voxels."""
    array = np.zeros(SHAPE, dtype)
    array.flat[: len(values)] = values
    return array


TOPS = [
    (np.uint64, 2**64 - 1),
    (np.uint32, 2**32 - 1),
    (np.int64, 2**32 - 1),
    (np.uint64, 2**32 - 1),
]


@pytest.mark.parametrize("store", [as_ids, as_classes])
@pytest.mark.parametrize(("dtype", "top"), TOPS)
def test_the_greatest_value_of_a_type_is_no_label(store: Any, dtype: Any, top: int):
    with pytest.raises(InputError, match=rf"^cremi seg: got the label {top}, wants 0 for background, or a mask"):
        store("cremi seg", holding(dtype, 1, top, 2))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64])
def test_the_greatest_value_of_two_bytes_is_no_class(dtype: Any):
    with pytest.raises(InputError, match="got the label 65535"):
        as_classes("it", holding(dtype, 65535))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("top", [2**32 - 1, 2**64 - 1])
def test_the_greatest_value_is_found_after_it_became_a_float(dtype: Any, top: int):
    with pytest.raises(InputError, match=r"got the label (4294967295|4294967296|18446744073709551616)"):
        as_classes("it", holding(dtype, top))
    with pytest.raises(InputError, match="got the label inf"):
        as_classes("it", holding(dtype, np.inf))


def test_the_greatest_value_of_two_bytes_may_be_an_id(capsys: Any):
    np.testing.assert_array_equal(as_ids("it", holding(np.uint16, 65535, 65534))[0], holding(int, 65535, 65534))
    as_ids("it", holding(np.int32, 65535))
    assert capsys.readouterr().err == ""
    as_ids("lab a seg", holding(np.uint16, 65535, 7))
    assert capsys.readouterr().err.startswith("warning: lab a seg: the id 65535 is the greatest of uint16")


def test_255_of_two_values_is_a_yes(capsys: Any):
    assert as_classes("it", holding(np.uint8, 255)).max() == 255
    as_classes("it", np.full(SHAPE, 255, np.uint8))
    as_classes("it", np.arange(256, dtype=np.uint8).reshape(4, 8, 8))
    assert capsys.readouterr().err == ""


def test_255_beside_other_classes_is_told(capsys: Any):
    as_classes("lab a mit", holding(np.uint8, 255, 1))
    assert capsys.readouterr().err.startswith("warning: lab a mit: 255 beside other classes")


def test_a_segmentation_without_instances_is_told(capsys: Any):
    np.testing.assert_array_equal(as_ids("lab a seg", holding(np.uint8))[0], 0)
    assert capsys.readouterr().err.startswith("warning: lab a seg: no instance, the label is 0 throughout")
    as_ids("it", holding(np.uint8, 1))
    as_classes("it", holding(np.uint8))  # a volume without mitochondria has something to teach
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.int64, 255), (np.float32, 255), (np.uint16, 65535)])
def test_a_mask_of_an_image_program_is_read_as_0_and_1(dtype: Any, top: int, capsys: Any):
    for given in (holding(dtype, top, 0, top), np.full(SHAPE, top, dtype)):
        kept = as_mask("lab a msk", given)
        assert kept.dtype == np.uint8
        np.testing.assert_array_equal(kept[0], given > 0)
        assert capsys.readouterr().err == f"warning: lab a msk: a mask of 0 and {top} is read as one of 0 and 1\n"


def test_a_mask_that_multiplies_the_loss_is_told(capsys: Any):
    np.testing.assert_array_equal(as_mask("lab a msk", holding(np.uint8, 3, 1))[0], holding(np.float32, 3, 1))
    assert (
        capsys.readouterr().err == "warning: lab a msk: a mask of whole numbers up to 3 multiplies the loss by them\n"
    )
    as_mask("it", holding(np.float32, 0.5, 2))
    as_mask("it", holding(np.uint8, 1))
    assert capsys.readouterr().err == ""


def test_a_mask_under_which_nothing_counts_is_told(capsys: Any):
    as_mask("lab a mit_msk", holding(np.uint8))
    assert capsys.readouterr().err == "warning: lab a mit_msk: the mask is 0 throughout; no voxel counts\n"
    as_mask("lab a mit_msk", holding(np.uint8, 1))
    assert not capsys.readouterr().err
