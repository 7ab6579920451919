"""What labels become."""

from __future__ import annotations

import numpy as np
import pytest

from deepem.data import target
from deepem.tasks import by_output
from deepem.utils.errors import InputError


def row(*ids: int) -> np.ndarray:
    return np.array(ids, np.int32).reshape(1, 1, 1, -1)


def test_one_channel_is_any_label_above_zero():
    made = target.binary(row(0, 1, 2, 0, 255), 1)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, row(0, 1, 1, 0, 1))


def test_several_channels_are_the_classes_of_one_volume():
    made = target.binary(row(0, 1, 2, 3), 2)
    np.testing.assert_array_equal(made, np.concatenate([row(0, 1, 0, 0), row(0, 0, 1, 0)]))


def test_several_channels_are_the_volumes_of_one_label():
    made = target.binary(np.concatenate([row(0, 5, 0), row(1, 5, 0)]), 2)
    np.testing.assert_array_equal(made, np.concatenate([row(0, 1, 0), row(1, 1, 0)]))


VESSEL = by_output(["blood_vessel"])["blood_vessel"]


def test_a_label_with_another_number_of_volumes_is_refused():
    for volumes in (1, 2):
        target.check_channels("a", VESSEL, 2, np.zeros((volumes, 1, 1, 1)))
    with pytest.raises(InputError, match="a blv: got 3 volumes, wants 1 or 2"):
        target.check_channels("a", VESSEL, 2, np.zeros((3, 1, 1, 1)))
    with pytest.raises(InputError, match=r"a blv: got 2 volumes, wants 1$"):
        target.check_channels("a", VESSEL, 1, np.zeros((2, 1, 1, 1)))


def test_a_class_without_a_channel_is_refused_unless_masked():
    label, mask = row(0, 1, 2, 3), row(1, 1, 1, 0)
    target.check_classes("a", VESSEL, 3, label, None)
    target.check_classes("a", VESSEL, 2, label, mask)
    with pytest.raises(InputError, match="a blv: got the class 3, wants classes from 0 to 2"):
        target.check_classes("a", VESSEL, 2, label, None)
    with pytest.raises(InputError, match="a blv: got the class 2, wants classes from 0 to 1"):
        target.check_classes("a", VESSEL, 1, label, mask)


def test_a_boundary_is_the_gap():
    np.testing.assert_array_equal(target.boundary(row(1, 1, 0, 2, 2, 0, 3), False), row(0, 0, 1, 0, 0, 1, 0))


def test_a_boundary_without_gap_is_where_instances_touch():
    np.testing.assert_array_equal(target.boundary(row(1, 1, 1, 2, 2, 2, 0, 0, 3), True), row(0, 0, 1, 1, 0, 1, 1, 1, 1))
    along_y = target.boundary(row(1, 1, 2, 2).swapaxes(2, 3), True)
    np.testing.assert_array_equal(along_y, row(0, 1, 1, 0).swapaxes(2, 3))
    assert target.boundary(row(1, 1, 2, 2).swapaxes(1, 3), True).max() == 0  # not between sections


def test_boundaries_do_not_depend_on_the_type_of_ids():
    seg = row(1, 1, 2, 2).astype(np.int64) + 2**40
    np.testing.assert_array_equal(target.boundary(seg, True), row(0, 1, 1, 0))


def columns(gap: int) -> np.ndarray:
    """Instances five voxels wide, with a gap between them."""
    period = np.repeat([0, 1], [gap, 5])
    ids = np.cumsum(np.diff(np.tile(period, 8), prepend=0) == 1) if gap else np.repeat(np.arange(1, 9), 5)
    return np.broadcast_to(np.tile(period, 8) * ids, (1, 3, 10, 8 * (5 + gap))).astype(np.int32)


def test_which_segmentations_have_a_gap():
    assert not target.instances_touch(columns(gap=1))
    assert not target.instances_touch(columns(gap=3))
    touching = columns(gap=0)
    assert target.instances_touch(touching)
    assert target.instances_touch(np.pad(touching, ((0, 0), (1, 1), (4, 4), (0, 4))))  # a rim is no gap
    touching = touching.copy()
    touching[0, 0, 0, 7] = 0  # nor is a voxel without label
    assert target.instances_touch(touching)
    assert not target.instances_touch(np.zeros((1, 2, 3, 4), np.int32))
    assert not target.instances_touch(np.ones((1, 2, 3, 1), np.int32))


def test_real_instances_touch(shared):  # type: ignore[no-untyped-def]
    h5py = pytest.importorskip("h5py")
    with h5py.File(shared / "data" / "fib25" / "seg.h5") as file:
        seg = file["main"][:20][None]
    assert target.instances_touch(seg)
    made = target.boundary(seg, True)
    assert 0.02 < made.mean() < 0.3
