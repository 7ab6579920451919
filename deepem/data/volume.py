"""Check volumes, store them in the smallest dtypes that hold them, and share their memory between workers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from deepem.data.drawn import Array, Drawn, Storing, known_of, seen, stored
from deepem.data.kinds import id_labels, storage
from deepem.data.labels import as_mask, as_soft, known
from deepem.data.shared import Shared, map_file, memory_file
from deepem.io.stored import SLACK
from deepem.tasks import TASKS, Task
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

__all__ = ["Array", "Shared", "Volume", "compact", "map_file", "memory_file"]


class GreyValueError(InputError):
    """An image that is neither uint8 nor float in [0, 1], given without the range that maps to 0 to 1."""


class Volume(dict[str, Any]):
    """A volume that `compact` has already checked."""


def compact(
    where: str,
    arrays: Mapping[str, Any],
    labels: Iterable[str],
    phase: str,
    rows: Iterable[Task] = TASKS,
) -> dict[str, Any]:
    """Check what a dataset module returned for one id, drop what is not needed, and store the rest compactly.

    Args:
        where: Name of the volume in errors, such as the module and the id.
        arrays: `img`, labels, `msk` (or `msk_train`, `msk_val`), `<label>_msk`, each (Z, Y, X) or (C, Z, Y, X);
            `soft`, `intensity` and `loc`; `label_factor`, (z, y, x) voxels of labels and masks per voxel of the image.
            A mapping of such mappings is a superset.
        labels: The labels that the chosen tasks could use; all others are dropped.
        phase: ``train`` or ``val``, which selects `msk_train` or `msk_val`.
        rows: The task rows, whose kinds decide how each label is stored.

    Returns:
        A dict of arrays (C, Z, Y, X), C-ordered, copied only where necessary:

        - `img`: uint8 or float32 in [0, 1], which rounding may overshoot; with an `intensity`, the dtype is unchanged.
        - Instance ids: int32, or int64 if they do not fit; voxels of id -1 are masked out.
        - Class labels: uint8. Labels that `soft` names: float32.
        - Masks: uint8 if they hold only 0 and 1, else float32. Missing masks stay missing. The mask of a label is
          multiplied by `msk_train` or `msk_val`, if there is one.
        - `loc`: whether patches are centred on voxels of `msk`. `label_factor`: only if it is not 1.

        An array on disk (`deepem.io.lazy.Lazy`) becomes a `Drawn` and stays on disk; facts about all of its voxels come
        from one scan. A superset returns a mapping of such dicts. A result of this function is returned unchanged.

    Raises:
        InputError: An array has an unsuitable dtype, shape or values, or its size differs from the image's.
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
    _check_sizes(where, out, factor)
    if key == f"msk_{phase}":  # a label's own mask must not reach into the other phase's part
        out |= {name: out[name] * out["msk"] for name in out if name.endswith("_msk")}
    finer = {} if factor == (1, 1, 1) else {"label_factor": factor}
    said = {"intensity": arrays["intensity"]} if "intensity" in arrays else {}
    return Volume(out | _masks_of_unknown(out, rows) | said | {"loc": bool(arrays.get("loc", False))} | finer)


def _check_sizes(where: str, arrays: Mapping[str, Any], factor: Vec3) -> None:
    """Refuse labels and masks whose size is not the image's times `factor`."""
    whole = tuple(n * f for n, f in zip(arrays["img"].shape[1:], factor, strict=True))
    for name, array in arrays.items():
        if name != "img" and array.shape[1:] != whole:
            times = "" if factor == (1, 1, 1) else f", times label_factor {factor}"
            wants = f"{whole}: the image's{times}" if times else f"the image's, {whole}"
            raise InputError(f"{where} {name}", f"shape {array.shape[1:]}", wants)


def _masks_of_unknown(arrays: Mapping[str, Any], rows: Iterable[Task]) -> dict[str, Any]:
    """Return a mask for each label of instance ids that has unknown voxels (id -1)."""
    labels = id_labels(rows) & arrays.keys()
    found = {f"{label}_msk": known(arrays[label], arrays.get(f"{label}_msk", arrays.get("msk"))) for label in labels}
    return {key: mask for key, mask in found.items() if mask is not None}


def _label_factor(where: str, given: Any) -> Vec3:
    """Return the (z, y, x) voxels of the labels per voxel of the image, checked."""
    try:
        factor = vec3(given)
    except (TypeError, ValueError):
        factor = (0, 0, 0)
    if min(factor) < 1 or factor != tuple(given):
        raise InputError(f"{where} label_factor", given, "three whole numbers z, y, x of 1 or more")
    return factor


def _mask_key(where: str, arrays: Mapping[str, Any], phase: str) -> str | None:
    """Return the key of the phase's mask, or None; refuse a volume that has a mask for the other phase only."""
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
    if low < -SLACK or high > 1 + SLACK:
        raise GreyValueError(where, f"float grey values from {low:g} to {high:g}", "uint8, or float in [0, 1]")
    return stored(array, Storing("grey", np.dtype(np.float32)))
