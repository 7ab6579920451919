"""Volumes in memory: checked, as small as their content allows, and shared between workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from deepem.data.drawn import Array, Drawn, Storing, known_of, seen, stored
from deepem.data.kinds import storage
from deepem.data.labels import as_mask
from deepem.data.shared import Shared, map_file, memory_file
from deepem.tasks import TASKS, Task
from deepem.utils.errors import InputError

__all__ = ["Array", "Shared", "Volume", "compact", "map_file", "memory_file"]


class Volume(dict[str, Any]):
    """What `compact` gave, which it need not look at again."""


def compact(
    where: str,
    arrays: Mapping[str, Any],
    labels: Iterable[str],
    phase: str,
    rows: Iterable[Task] = TASKS,
) -> dict[str, Any]:
    """Check what a dataset module gave for one id, and keep what is needed of it, as small as it goes.

    Args:
        where: Names the volume in errors, such as ``cremi_b``'s module and id.
        arrays: `img`, labels, `msk` (or `msk_train`, `msk_val`), `<label>_msk`, each (Z, Y, X) or (C, Z, Y, X), and
            `loc`. A mapping of such mappings is a superset.
        labels: The labels that the chosen tasks could use; others are dropped.
        phase: ``train`` or ``val``, which decides between `msk_train` and `msk_val`.
        rows: The table that says how a label is stored: its rows' kinds do.

    Returns:
        `img` uint8 or float32 in [0, 1]; id labels int32, or int64 where they do not fit; class labels uint8; masks
        uint8 if they hold only 0 and 1, else float32; all (C, Z, Y, X) and C-ordered, the array itself where it is so
        already. An array that lies on disk (`deepem.io.lazy.Lazy`) becomes a `Drawn`, the same without being read; what
        is asked of all its voxels a scan finds, once. `loc`: whether patches are centred on voxels of `msk`. Absent
        masks stay absent; that of a label holds within `msk_train` or `msk_val`, where there is one. A superset gives a
        mapping of such mappings. What this function gave before is given back as it is.

    Raises:
        InputError: an array that is none of this, or of another size than the image.
    """
    if isinstance(arrays, Volume):
        return arrays
    labels, rows = tuple(labels), tuple(rows)
    if "img" not in arrays and arrays and all(isinstance(part, Mapping) for part in arrays.values()):
        return {name: compact(f"{where}/{name}", part, labels, phase, rows) for name, part in arrays.items()}
    if arrays.get("img") is None:
        raise InputError(where, f"the keys {', '.join(map(str, arrays)) or 'none'}", "an image under the key img")
    image = _image(f"{where} img", arrays["img"])
    out: dict[str, Any] = {"img": image}
    for label in labels:
        if arrays.get(label) is not None:
            out[label] = storage(label, rows)(f"{where} {label}", arrays[label])
        if arrays.get(f"{label}_msk") is not None:
            out[f"{label}_msk"] = as_mask(f"{where} {label}_msk", arrays[f"{label}_msk"])
    key = _mask_key(where, arrays, phase)
    if key is not None:
        out["msk"] = as_mask(f"{where} {key}", arrays[key])
    for name, array in out.items():
        if array.shape[1:] != image.shape[1:]:
            raise InputError(f"{where} {name}", f"shape {array.shape[1:]}", f"the image's, {image.shape[1:]}")
    if key == f"msk_{phase}":  # no label is trained on in the other phase's part, whatever a mask of its own says
        out |= {name: out[name] * out["msk"] for name in out if name.endswith("_msk")}
    return Volume(out | {"loc": bool(arrays.get("loc", False))})


def _mask_key(where: str, arrays: Mapping[str, Any], phase: str) -> str | None:
    """The mask of a phase. One that has a mask for the other phase only must not be used unmasked in this one."""
    if phase not in ("train", "val"):
        raise ValueError(f"no such phase: {phase}")
    for key in (f"msk_{phase}", "msk"):
        if arrays.get(key) is not None:
            return key
    other = "msk_val" if phase == "train" else "msk_train"
    if arrays.get(other) is not None:
        raise InputError(where, f"{other} but no msk_{phase}", f"msk_{phase} or msk, for use in this phase")
    return None


def _image(where: str, given: Any) -> Array | Drawn:
    array = seen(where, given)
    if array.dtype == np.uint8:
        return stored(array, Storing("cast", np.dtype(np.uint8)))
    if array.dtype.kind != "f":
        raise InputError(where, f"{array.dtype} grey values", "uint8, or float in [0, 1]")
    known = known_of(array)
    low, high = float(known.low), float(known.high)
    if np.isnan(low):
        raise InputError(where, "NaN", "a grey value at every voxel")
    if low < 0 or high > 1:
        raise InputError(where, f"float grey values from {low:g} to {high:g}", "uint8, or float in [0, 1]")
    return stored(array, Storing("grey", np.dtype(np.float32)))
