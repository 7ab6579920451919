"""Labels and masks as they are kept: checked, and no larger than their content needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepem.data.drawn import TOP_CLASS, Array, Drawn, Storing, known_of, seen, stored
from deepem.data.facts import Known
from deepem.utils.errors import InputError, warn

TOPS = (2**64 - 1, 2**32 - 1, 2**16 - 1)
"""The greatest values of unsigned types. Many files mark voxels without a label by them."""


def as_ids(where: str, given: Any) -> Array | Drawn:
    """Instance ids, (1, Z, Y, X) int32, or int64 where they do not fit. Ids that are 0 throughout are warned about.

    Raises:
        InputError: no ids, or the greatest value of a type of 32 bits or more, which stands for no label.
    """
    array = seen(where, given)
    wants = "instance ids: whole numbers from 0 (background)"
    if array.dtype.kind not in "iu":
        raise InputError(where, f"{array.dtype} labels", wants)
    if array.shape[0] != 1:
        raise InputError(where, f"{array.shape[0]} channels", "one channel of instance ids")
    known = known_of(array)
    low, high = int(known.low), int(known.high)
    if low < 0:
        raise InputError(where, f"the negative label {low}", wants)
    if high in TOPS[:2]:
        raise _top_value(where, high)
    if high > np.iinfo(np.int64).max:
        raise InputError(where, f"the label {high}", "ids below 2**63")
    if array.dtype == np.uint16 and _lone_top(known):
        warn(f"{where}: the id {high} is the greatest of uint16; if it marks voxels without a label, make them 0")
    if not high:
        warn(f"{where}: no instance, the label is 0 throughout; every voxel counts as background")
    return stored(array, Storing("cast", np.dtype(np.int32 if high <= np.iinfo(np.int32).max else np.int64)))


def as_classes(where: str, given: Any) -> Array | Drawn:
    """Classes, (C, Z, Y, X) uint8.

    255 in a byte volume of two values is how many programs save a yes. Beside other values it may mark voxels without
    a label, which is warned about.

    Raises:
        InputError: no classes, or the greatest value of a type of 16 bits or more, which stands for no label.
    """
    array = seen(where, given)
    wants = "class labels: whole numbers from 0 (background)"
    if array.dtype.kind not in "biuf":
        raise InputError(where, f"{array.dtype} labels", wants)
    known = known_of(array)
    low, high = known.low, known.high
    if not low >= 0:  # NaN is not
        raise InputError(where, f"the label {low:g}", wants)
    if array.dtype.kind == "f":
        if not np.isfinite(high):
            raise InputError(where, f"the label {high:g}", wants)
        if not known.whole:
            raise InputError(where, f"fractions ({array.dtype})", wants)
    if int(high) in _tops_of(array.dtype):
        raise _top_value(where, int(high))
    if array.dtype.itemsize == 1:
        if _lone_top(known):
            warn(f"{where}: 255 beside other classes is a class too; voxels without a label are for a mask")
        return stored(array, Storing("bytes", np.dtype(np.uint8)))
    return stored(array, Storing("clip", np.dtype(np.uint8)))


def as_mask(where: str, given: Any) -> Array | Drawn:
    """A mask (1, Z, Y, X): uint8 if it holds only 0 and 1, else float32 weights.

    A mask of 0 and 255 (or 65535), as image programs write it, is read as 0 and 1, with one line that says so.

    Raises:
        InputError: several channels, or values that are no weights.
    """
    array = seen(where, given)
    if array.shape[0] != 1:
        raise InputError(where, f"{array.shape[0]} channels", "one channel")
    if array.dtype.kind not in "biuf":
        raise InputError(where, f"a mask of {array.dtype}", "numbers")
    known = known_of(array)
    low, high = known.low, known.high
    if not (low >= 0 and np.isfinite(high)):
        raise InputError(where, f"mask values from {low:g} to {high:g}", "finite weights of 0 or more")
    if array.dtype.kind == "b":
        return stored(array, Storing("bytes", np.dtype(np.uint8)))
    if int(high) in (TOP_CLASS, *TOPS) and known.two_valued:
        warn(f"{where}: a mask of 0 and {int(high)} is read as one of 0 and 1")
        return stored(array, Storing("positive", np.dtype(np.uint8)))
    if array.dtype.kind != "f" and high > 1:
        warn(f"{where}: a mask of whole numbers up to {int(high)} multiplies the loss by them")
    whole = high <= 1 and (array.dtype.kind != "f" or known.whole)
    return stored(array, Storing("cast", np.dtype(np.uint8 if whole else np.float32)))


def _top_value(where: str, value: int) -> InputError:
    wants = "0 for background, or a mask over voxels without a label: it is the greatest value of its type"
    return InputError(where, f"the label {value}", wants)


def _tops_of(dtype: np.dtype[Any]) -> tuple[int, ...]:
    """The values that mark voxels without a label in a type; 65535 in a wider one may be a plain number."""
    if dtype.kind == "f":
        return (*TOPS, *(int(np.float32(top)) for top in TOPS))
    return TOPS if dtype == np.uint16 else TOPS[:2]


def _lone_top(known: Known) -> bool:
    """Whether the greatest value of an unsigned type stands far from the others, of which there are several."""
    if known.dtype.kind != "u" or int(known.high) != np.iinfo(known.dtype).max:
        return False
    return not known.near_top and not known.two_valued
