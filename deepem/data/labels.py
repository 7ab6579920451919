"""Check labels and masks, and store them in the smallest dtype that holds their values."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepem.data.drawn import TOP_CLASS, Array, Drawn, Storing, known_of, seen, stored
from deepem.data.facts import Known
from deepem.utils.errors import InputError, warn

UNKNOWN = -1
"""The id of voxels whose instance is unknown."""

TOPS = (2**64 - 1, 2**32 - 1, 2**16 - 1)
"""Maximum values of unsigned dtypes, which many files use to mark unlabelled voxels."""


def as_ids(where: str, given: Any) -> Array | Drawn:
    """Return instance ids, (1, Z, Y, X) int32, or int64 if they do not fit; warn if all are 0.

    -1 marks voxels whose instance is unknown; see `known`.

    Raises:
        InputError: The values are not ids, or include the maximum of a dtype of 32 bits or more, which usually marks
            unlabelled voxels.
    """
    array = seen(where, given)
    if array.shape[0] != 1:
        raise InputError(where, f"{array.shape[0]} channels", "one channel of instance ids")
    return as_ids_by_class(where, array)


def as_ids_by_class(where: str, given: Any) -> Array | Drawn:
    """Return instance ids with one channel per class of objects, (C, Z, Y, X) int32 or int64; see `as_ids`.

    Raises:
        InputError: As in `as_ids`, except that any number of channels is allowed.
    """
    array = seen(where, given)
    wants = "instance ids: whole numbers from 0 (background), or -1 where nothing is known"
    if array.dtype.kind not in "iu":
        raise InputError(where, f"{array.dtype} labels", wants)
    looked_at = known_of(array)
    low, high = int(looked_at.low), int(looked_at.high)
    if low < UNKNOWN:
        raise InputError(where, f"the negative label {low}", wants)
    if high in TOPS[:2]:
        raise _top_value(where, high)
    if high > np.iinfo(np.int64).max:
        raise InputError(where, f"the label {high}", "ids below 2**63")
    if array.dtype == np.uint16 and _lone_top(looked_at):
        warn(f"{where}: the id {high} is the greatest of uint16; if it marks voxels without a label, make them 0")
    if low == UNKNOWN:
        warn(f"{where}: voxels of id {UNKNOWN} are masked out: nothing is known of them")
    if high <= 0:
        warn(f"{where}: no instance, the label is 0 throughout; every voxel counts as background")
    return stored(array, Storing("cast", np.dtype(np.int32 if high <= np.iinfo(np.int32).max else np.int64)))


def known(ids: Array | Drawn, mask: Array | Drawn | None) -> Array | Drawn | None:
    """Return the mask (1, Z, Y, X) with voxels of unknown id (-1) set to 0; None if all ids are known.

    Args:
        ids: The ids, as stored.
        mask: The mask of these ids, or None.
    """
    if ids.min() >= 0:
        return None
    if isinstance(ids, Drawn):
        counts = Drawn(ids.lazy, Storing("known", np.dtype(np.uint8)))
        return counts if mask is None else counts * mask
    if isinstance(mask, Drawn):
        there: Array = (ids != UNKNOWN).astype(np.uint8)
        return mask * there
    whole: Array = np.ones((), np.uint8) if mask is None else mask
    less: Array = np.where((ids == UNKNOWN).any(0, keepdims=True), whole.dtype.type(0), whole)
    return less


def as_soft(where: str, given: Any) -> Array | Drawn:
    """Return a target between 0 and 1, such as another network's probabilities, (C, Z, Y, X) float32.

    A uint8 array with values above 1 is divided by 255.

    Raises:
        InputError: Values lie outside 0 to 1.
    """
    array = seen(where, given)
    if array.dtype.kind not in "biuf":
        raise InputError(where, f"{array.dtype} values", "numbers from 0 to 1")
    looked_at = known_of(array)
    low, high = float(looked_at.low), float(looked_at.high)
    if array.dtype == np.uint8 and high > 1:
        return stored(array, Storing("share", np.dtype(np.float32)))
    if not (low >= 0 and high <= 1):
        raise InputError(where, f"a soft target from {low:g} to {high:g}", "numbers from 0 to 1")
    return stored(array, Storing("cast", np.dtype(np.float32)))


def as_classes(where: str, given: Any) -> Array | Drawn:
    """Return class labels, (C, Z, Y, X) uint8.

    In a uint8 volume of two values, 255 means "yes", as many programs save it. Beside several other values, 255 may
    mark unlabelled voxels, so warn about it.

    Raises:
        InputError: The values are not classes, or include the maximum of a dtype of 16 bits or more, which usually
            marks unlabelled voxels.
    """
    array = seen(where, given)
    wants = "class labels: whole numbers from 0 (background)"
    if array.dtype.kind not in "biuf":
        raise InputError(where, f"{array.dtype} labels", wants)
    looked_at = known_of(array)
    low, high = looked_at.low, looked_at.high
    if not low >= 0:  # also refuses NaN
        raise InputError(where, f"the label {low:g}", wants)
    if array.dtype.kind == "f":
        if not np.isfinite(high):
            raise InputError(where, f"the label {high:g}", wants)
        if not looked_at.whole:
            raise InputError(where, f"fractions ({array.dtype})", wants)
    if int(high) in _tops_of(array.dtype):
        raise _top_value(where, int(high))
    if array.dtype.itemsize == 1:
        if _lone_top(looked_at):
            warn(f"{where}: 255 beside other classes is a class too; voxels without a label are for a mask")
        return stored(array, Storing("bytes", np.dtype(np.uint8)))
    return stored(array, Storing("clip", np.dtype(np.uint8)))


def as_mask(where: str, given: Any) -> Array | Drawn:
    """Return a mask (1, Z, Y, X): uint8 if it holds only 0 and 1, else float32 weights.

    A mask of 0 and 255 (or 65535), as image programs write it, is read as 0 and 1, with a warning.

    Raises:
        InputError: The mask has several channels, or values that are not valid weights.
    """
    array = seen(where, given)
    if array.shape[0] != 1:
        raise InputError(where, f"{array.shape[0]} channels", "one channel")
    if array.dtype.kind not in "biuf":
        raise InputError(where, f"a mask of {array.dtype}", "numbers")
    looked_at = known_of(array)
    low, high = looked_at.low, looked_at.high
    if not (low >= 0 and np.isfinite(high)):
        raise InputError(where, f"mask values from {low:g} to {high:g}", "finite weights of 0 or more")
    if array.dtype.kind == "b":
        return stored(array, Storing("bytes", np.dtype(np.uint8)))
    if high == 0:
        warn(f"{where}: the mask is 0 throughout; no voxel counts")
    if int(high) in (TOP_CLASS, *TOPS) and looked_at.two_valued:
        warn(f"{where}: a mask of 0 and {int(high)} is read as one of 0 and 1")
        return stored(array, Storing("positive", np.dtype(np.uint8)))
    if array.dtype.kind != "f" and high > 1:
        warn(f"{where}: a mask of whole numbers up to {int(high)} multiplies the loss by them")
    whole = high <= 1 and (array.dtype.kind != "f" or looked_at.whole)
    return stored(array, Storing("cast", np.dtype(np.uint8 if whole else np.float32)))


def _top_value(where: str, value: int) -> InputError:
    wants = "0 for background, or a mask over voxels without a label: it is the greatest value of its type"
    return InputError(where, f"the label {value}", wants)


def _tops_of(dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Return the values that mark unlabelled voxels in a dtype; 65535 is an ordinary value in wider integer dtypes."""
    if dtype.kind == "f":
        return (*TOPS, *(int(np.float32(top)) for top in TOPS))
    return TOPS if dtype == np.uint16 else TOPS[:2]


def _lone_top(known: Known) -> bool:
    """Whether the maximum of an unsigned dtype occurs, far from the other values, of which there are several."""
    if known.dtype.kind != "u" or int(known.high) != np.iinfo(known.dtype).max:
        return False
    return not known.near_top and not known.two_valued
