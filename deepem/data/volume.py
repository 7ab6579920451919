"""Volumes in memory: checked, as small as their content allows, and shared between workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from deepem.data.drawn import Array, Drawn, Storing, known_of, seen, stored
from deepem.data.kinds import id_labels, storage
from deepem.data.labels import as_mask, as_soft, known
from deepem.data.shared import Shared, map_file, memory_file
from deepem.tasks import TASKS, Task
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

__all__ = ["Array", "Shared", "Volume", "compact", "map_file", "memory_file"]


class GreyValueError(InputError):
    """An image whose grey values are neither bytes nor floats in [0, 1], and without a range that becomes 0 to 1."""


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
        arrays: `img`, labels, `msk` (or `msk_train`, `msk_val`), `<label>_msk`, each (Z, Y, X) or (C, Z, Y, X);
            `soft`, `intensity` and `loc`; `label_factor`, (z, y, x) voxels of labels and masks per voxel of the image.
            A mapping of such mappings is a superset.
        labels: The labels that the chosen tasks could use; others are dropped.
        phase: ``train`` or ``val``, which decides between `msk_train` and `msk_val`.
        rows: The table that says how a label is stored: its rows' kinds do.

    Returns:
        `img` uint8 or float32 in [0, 1], or, with an `intensity`, of the type that it had; id labels int32, or int64
        where they do not fit, masked where they are -1; class labels uint8; those that `soft` names float32; masks
        uint8 if they hold only 0 and 1, else float32; all (C, Z, Y, X) and C-ordered, the array itself where it is so
        already. An array that lies on disk (`deepem.io.lazy.Lazy`) becomes a `Drawn`, the same without being read; what
        is asked of all its voxels a scan finds, once. `loc`: whether patches are centred on voxels of `msk`. Absent
        masks stay absent; that of a label holds within `msk_train` or `msk_val`, where there is one. `label_factor`,
        unless it is 1. A superset gives a mapping of such mappings. What this function gave before is given back as it
        is.

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
    image = _image(f"{where} img", arrays["img"], ranged="intensity" in arrays)
    out: dict[str, Any] = {"img": image}
    for label in labels:
        if arrays.get(label) is not None:
            store = as_soft if label in arrays.get("soft", ()) else storage(label, rows)
            out[label] = store(f"{where} {label}", arrays[label])
        if arrays.get(f"{label}_msk") is not None:
            out[f"{label}_msk"] = as_mask(f"{where} {label}_msk", arrays[f"{label}_msk"])
    key = _mask_key(where, arrays, phase)
    if key is not None:
        out["msk"] = as_mask(f"{where} {key}", arrays[key])
    factor = _label_factor(where, arrays.get("label_factor", (1, 1, 1)))
    whole = tuple(n * f for n, f in zip(image.shape[1:], factor, strict=True))
    for name, array in out.items():
        if name != "img" and array.shape[1:] != whole:
            times = "" if factor == (1, 1, 1) else f", times label_factor {factor}"
            wants = f"{whole}: the image's{times}" if times else f"the image's, {whole}"
            raise InputError(f"{where} {name}", f"shape {array.shape[1:]}", wants)
    if key == f"msk_{phase}":  # no label is trained on in the other phase's part, whatever a mask of its own says
        out |= {name: out[name] * out["msk"] for name in out if name.endswith("_msk")}
    finer = {} if factor == (1, 1, 1) else {"label_factor": factor}
    said = {"intensity": arrays["intensity"]} if "intensity" in arrays else {}
    return Volume(out | _masks_of_unknown(out, rows) | said | {"loc": bool(arrays.get("loc", False))} | finer)


def _masks_of_unknown(arrays: Mapping[str, Any], rows: Iterable[Task]) -> dict[str, Any]:
    """The masks of instance ids of which some are not known."""
    labels = id_labels(rows) & arrays.keys()
    found = {f"{label}_msk": known(arrays[label], arrays.get(f"{label}_msk", arrays.get("msk"))) for label in labels}
    return {key: mask for key, mask in found.items() if mask is not None}


def _label_factor(where: str, given: Any) -> Vec3:
    """(z, y, x) voxels of the labels per voxel of the image."""
    try:
        factor = vec3(given)
    except (TypeError, ValueError):
        factor = (0, 0, 0)
    if min(factor) < 1 or factor != tuple(given):
        raise InputError(f"{where} label_factor", given, "three whole numbers z, y, x of 1 or more")
    return factor


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


def _image(where: str, given: Any, *, ranged: bool) -> Array | Drawn:
    array = seen(where, given)
    if array.dtype == np.uint8 or (ranged and array.dtype.kind in "iu"):
        return stored(array, Storing("cast", array.dtype))
    if array.dtype.kind != "f":
        raise GreyValueError(where, f"{array.dtype} grey values", "uint8, or float in [0, 1]")
    looked_at = known_of(array)
    low, high = float(looked_at.low), float(looked_at.high)
    if np.isnan(low):
        raise InputError(where, "NaN", "a grey value at every voxel")
    if ranged:
        return stored(array, Storing("cast", array.dtype))
    if low < 0 or high > 1:
        raise GreyValueError(where, f"float grey values from {low:g} to {high:g}", "uint8, or float in [0, 1]")
    return stored(array, Storing("grey", np.dtype(np.float32)))
