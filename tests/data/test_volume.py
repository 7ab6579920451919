"""What a dataset module may give, what is refused, and that volumes are compact and shared."""

from __future__ import annotations

import multiprocessing
import pickle
from typing import Any

import numpy as np
import pytest

from deepem.data.volume import Shared, compact
from deepem.utils.errors import InputError

SHAPE = (4, 5, 6)
LABELS = ("seg", "mit", "blv")


def image(**more: Any) -> dict[str, Any]:
    return {"img": np.zeros(SHAPE, np.uint8), **more}


def refused(match: str, phase: str = "train", **arrays: Any) -> None:
    with pytest.raises(InputError, match=match) as error:
        compact("module cremi_b", image(**arrays), LABELS, phase)
    assert str(error.value).startswith("module cremi_b")
    assert "\n" not in str(error.value)


def test_arrays_that_are_compact_already_are_not_copied():
    given = image(seg=np.ones(SHAPE, np.int32), mit=np.ones(SHAPE, np.uint8), msk=np.ones(SHAPE, np.uint8))
    kept = compact("it", given, LABELS, "train")
    assert all(np.shares_memory(kept[key], given[key]) for key in given)
    floats = np.full(SHAPE, 0.5, np.float32)
    assert np.shares_memory(compact("it", {"img": floats}, (), "val")["img"], floats)


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (np.full(SHAPE, 2**24 + 1, np.uint64), np.int32),
        (np.full(SHAPE, 2**31 - 1, np.uint32), np.int32),
        (np.full(SHAPE, 2**31, np.uint32), np.int64),
        (np.full(SHAPE, 2**62 + 1, np.uint64), np.int64),
        (np.full(SHAPE, 7, ">i8"), np.int32),
        (np.full(SHAPE, 7, np.uint8), np.int32),
    ],
)
def test_ids_keep_their_value_in_the_smaller_type_that_fits(given: Any, dtype: Any):
    seg = compact("it", image(seg=given), LABELS, "train")["seg"]
    assert seg.dtype == dtype
    assert int(seg.max()) == int(given.max())


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.uint64, np.float32])
def test_class_labels_become_bytes(dtype: Any):
    label = np.arange(120).reshape(SHAPE).astype(dtype)
    kept = compact("it", image(mit=label), LABELS, "train")["mit"]
    assert kept.dtype == np.uint8
    assert kept.shape == (1, *SHAPE)
    np.testing.assert_array_equal(kept[0], label)


def test_class_labels_beyond_a_byte_stay_positive():
    label = np.zeros(SHAPE, np.uint64)
    label[0, 0] = [0, 1, 255, 256, 512, 2**40]
    kept = compact("it", image(mit=label), LABELS, "train")["mit"]
    np.testing.assert_array_equal(kept[0, 0, 0], [0, 1, 255, 255, 255, 255])


def test_masks_are_bytes_unless_they_weigh():
    weights = np.linspace(0, 2, 120).reshape(SHAPE)
    kept = compact("it", image(msk=weights > 1, seg_msk=weights, mit_msk=(weights > 1) * 1.0), LABELS, "train")
    assert kept["msk"].dtype == kept["mit_msk"].dtype == np.uint8
    assert kept["seg_msk"].dtype == np.float32
    np.testing.assert_allclose(kept["seg_msk"][0], weights, rtol=1e-6)


def test_only_what_is_chosen_is_kept():
    given = image(seg=np.ones(SHAPE, int), mye=np.ones(SHAPE), mye_msk=np.ones(SHAPE), loc=1)
    assert set(compact("it", given, LABELS, "train")) == {"img", "seg", "loc"}


def test_the_mask_of_the_phase():
    given = image(msk_train=np.zeros(SHAPE), msk_val=np.ones(SHAPE))
    assert compact("it", given, (), "train")["msk"].max() == 0
    assert compact("it", given, (), "val")["msk"].min() == 1
    assert compact("it", image(msk=np.ones(SHAPE)), (), "val")["msk"].min() == 1


def test_a_label_s_own_mask_holds_within_that_of_the_phase():
    """Else the part that is kept for evaluation would be trained on, for that label."""
    half = np.zeros(SHAPE, np.uint8)
    half[:1] = 1
    weights = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    given = image(msk_train=half, msk_val=1 - half, mit=np.ones(SHAPE, np.uint8), mit_msk=weights)
    for phase, mask in (("train", half), ("val", 1 - half)):
        np.testing.assert_array_equal(compact("m", given, ("mit",), phase)["mit_msk"][0], weights * mask)
    given = image(msk=half, mit=np.ones(SHAPE, np.uint8), mit_msk=weights)
    np.testing.assert_array_equal(compact("m", given, ("mit",), "train")["mit_msk"][0], weights)


def test_a_superset_holds_volumes_by_name():
    kept = compact("m id", {"a": image(), "b": image()}, LABELS, "train")
    assert set(kept) == {"a", "b"}
    with pytest.raises(InputError, match=r"^m id/b img"):
        compact("m id", {"a": image(), "b": {"img": np.zeros((3, 3))}}, LABELS, "train")


def test_four_dimensional_images_and_labels():
    kept = compact("it", {"img": np.zeros((2, *SHAPE), np.uint8), "blv": np.zeros((2, *SHAPE), bool)}, LABELS, "train")
    assert kept["img"].shape == kept["blv"].shape == (2, *SHAPE)


def with_(value: float, dtype: Any = np.float32) -> Any:
    array = np.zeros(SHAPE, dtype)
    array[1, 2, 3] = value
    return array


def test_what_is_refused():
    refused(r"img: got NaN", img=with_(np.nan))
    refused(r"img: got float grey values from 0 to 255, wants uint8, or float in \[0, 1\]", img=with_(255))
    refused(r"img: got float grey values from -1", img=with_(-1))
    refused(r"img: got uint16", img=with_(1, np.uint16))
    refused(r"img: got shape \(5, 6\)", img=np.zeros((5, 6), np.uint8))
    refused(r"img: got shape \(0, 5, 6\)", img=np.zeros((0, 5, 6), np.uint8))
    refused(r"seg: got float32 labels", seg=with_(1))
    refused(r"seg: got bool labels", seg=with_(1, bool))
    refused(r"seg: got the negative label -3", seg=with_(-3, np.int16))
    refused(r"seg: got the label 18446744073709551615", seg=with_(2**64 - 1, np.uint64))
    refused(r"seg: got 2 channels", seg=np.zeros((2, *SHAPE), int))
    refused(r"seg: got shape \(4, 5, 7\), wants the image's, \(4, 5, 6\)", seg=np.zeros((4, 5, 7), int))
    refused(r"mit: got the label -1", mit=with_(-1, np.int8))
    refused(r"mit: got the label nan", mit=with_(np.nan))
    refused(r"mit: got fractions", mit=with_(0.25))
    refused(r"msk: got mask values from 0 to inf", msk=with_(np.inf))
    refused(r"msk: got mask values from nan to nan", msk=with_(np.nan))
    refused(r"msk: got mask values from -1 to 0", msk=with_(-1))
    refused(r"msk: got shape \(4, 6, 5\)", msk=np.zeros((4, 6, 5)))
    refused(r"mit_msk: got shape \(4, 6, 5\)", mit_msk=np.zeros((4, 6, 5)))
    refused(r"msk: got 2 channels", msk=np.zeros((2, *SHAPE)))
    refused(r"got msk_train but no msk_val", phase="val", msk_train=np.ones(SHAPE))
    with pytest.raises(InputError, match="module x: got the keys seg, wants an image"):
        compact("module x", {"seg": np.zeros(SHAPE, int)}, LABELS, "train")


def test_a_resampled_image_may_overshoot_by_rounding_as_in_prediction():
    given = with_(1 + 1e-6)
    given[0, 0, 0] = -1e-7
    np.testing.assert_array_equal(compact("it", {"img": given}, (), "train")["img"][0], given)
    refused(r"img: got float grey values from 0 to 1.01", img=with_(1.01))
    refused(r"img: got an array of complex64", img=with_(0).astype(np.complex64))
    refused(r"img: got an array of \[\('a', 'u1'\)\]", img=np.zeros(SHAPE, [("a", "u1")]))


def _write(shared: Shared) -> None:
    shared.array[0] = 7


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_worker_and_its_parent_see_the_same_memory(start: str):
    shared = Shared.zeros((3,), np.int64)
    process = multiprocessing.get_context(start).Process(target=_write, args=(shared,))
    process.start()
    process.join()
    assert process.exitcode == 0
    np.testing.assert_array_equal(shared.array, [7, 0, 0])


def test_a_volume_is_not_copied_to_a_spawned_worker():
    volume = np.zeros(3, np.int64)
    shared = Shared(volume)
    process = multiprocessing.get_context("spawn").Process(target=_write, args=(shared,))
    process.start()
    process.join()
    np.testing.assert_array_equal(shared.array, [7, 0, 0])  # the worker wrote into what is read here
    assert volume.max() == 0


def test_shared_arrays_can_be_pickled_as_they_are():
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(Shared(np.arange(5)))).array, np.arange(5))
