"""Convert CREMI's files: sample B at 8 nm in plane, as `flyem.cremi_b` reads it, or any sample at full resolution.

A file has ``volumes/raw``. Training samples also have ``volumes/labels/neuron_ids`` and ``clefts``, whose attribute
``offset`` is the position in nanometres where the labels begin in the image. The pre- and postsynaptic sites of
synapses are points under ``annotations``, in nanometres from the ``offset`` of that group.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from deepem.data.borders import eroded
from deepem.data.convert import smallest
from deepem.data.truth_folder import masks
from deepem.utils.errors import InputError

PAD = (16, 256, 256)
"""Unlabelled voxels (z, y, x) on each side, at 8 nm in plane."""

RADIUS_NM = 60.0
"""Radius of the balls drawn around synaptic sites."""

SITES = {"presynaptic_site": 1, "postsynaptic_site": 2}

NOTHING = np.uint64(2**64 - 1)
"""The value that CREMI uses for "no cleft" and "no neuron"."""


def convert(hdf: Path, pad: tuple[int, int, int] = PAD, glia_ids: Sequence[int] = ()) -> dict[str, NDArray[Any]]:
    """Make the volumes (Z, Y, X) of the folder that `flyem.cremi_b` reads, from a CREMI file.

    Raises:
        InputError: The file cannot be read, or is not a CREMI file with labels.
    """
    try:
        with h5py.File(hdf, "r") as top:
            raw, ids = dataset(top, hdf, "volumes/raw"), dataset(top, hdf, "volumes/labels/neuron_ids")
            out = {"img": image(raw, labelled(hdf, raw, ids), pad), "seg": labels(ids, pad)}
            for key, name in (("syn", "clefts"), ("glia", "glia")):
                if f"volumes/labels/{name}" in top:
                    found = labels(like(ids, dataset(top, hdf, f"volumes/labels/{name}"), hdf), pad)
                    out[key] = (found > 0).astype(np.uint8)
    except (OSError, RuntimeError) as error:
        raise InputError(hdf, f"a file that cannot be read ({' '.join(str(error).split())})", "CREMI's file") from error
    if glia_ids:
        out["glia"] = np.isin(out["seg"], glia_ids).astype(np.uint8)
    out["seg"] = out["seg"].astype(np.uint32) if out["seg"].max(initial=0) < 2**32 else out["seg"]
    out["seg_d3_b0"] = eroded(out["seg"])
    return {**out, **_masks(out["img"].shape, pad)}


def convert_whole(hdf: Path, pad: tuple[int, int, int] = (0, 0, 0), radius_nm: float = RADIUS_NM) -> dict[str, Any]:
    """Make the volumes (Z, Y, X) of a sample at full resolution, 4 nm in plane: img and, if it has labels, more.

    These are seg and seg_d3_b0; syn, 1 in clefts; partners, 1 near presynaptic and 2 near postsynaptic sites; and
    msk_train and msk_val. The image around the labels in CREMI's padded files fills `pad`, as far as it reaches.

    Raises:
        InputError: The file cannot be read, or is not a CREMI file.
    """
    try:
        with h5py.File(hdf, "r") as top:
            raw = dataset(top, hdf, "volumes/raw")
            if "volumes/labels/neuron_ids" not in top:
                return {"img": image(raw, [(0, n) for n in raw.shape], pad, 1)}
            ids = dataset(top, hdf, "volumes/labels/neuron_ids")
            box = labelled(hdf, raw, ids, even=False)
            out = {"img": image(raw, box, pad, 1), "seg": smallest(labels(ids, pad, 1))}
            if "volumes/labels/clefts" in top:
                found = labels(like(ids, dataset(top, hdf, "volumes/labels/clefts"), hdf), pad, 1)
                out["syn"] = (found > 0).astype(np.uint8)
            if "annotations/locations" in top:
                begin = [low - reach for (low, _), reach in zip(box, pad, strict=True)]
                out["partners"] = sites(top["annotations"], out["img"].shape, begin, resolution(raw, hdf), radius_nm)
    except (OSError, RuntimeError) as error:
        raise InputError(hdf, f"a file that cannot be read ({' '.join(str(error).split())})", "CREMI's file") from error
    out["seg_d3_b0"] = eroded(out["seg"])
    return {**out, **_masks(out["img"].shape, pad)}


def _masks(shape: tuple[int, ...], pad: tuple[int, int, int]) -> dict[str, NDArray[Any]]:
    z, y, x = (slice(p, n - p) for p, n in zip(pad, shape, strict=True))
    return masks(shape, (z, y, x))


def sites(
    annotations: Any, shape: tuple[int, ...], begin: Sequence[int], nm: NDArray[np.float64], radius_nm: float
) -> NDArray[np.uint8]:
    """Draw balls around synaptic sites, (Z, Y, X): 1 presynaptic, 2 postsynaptic; where balls overlap, the nearer wins.

    Args:
        annotations: CREMI's group with ``ids``, ``types`` and ``locations`` in nanometres.
        shape: Shape of the result.
        begin: Begin of the result, in voxels of the image.
        nm: Voxel size.
        radius_nm: Radius of the balls.
    """
    out, nearest = np.zeros(shape, np.uint8), np.full(shape, np.inf, np.float32)
    offset = np.asarray(annotations.attrs.get("offset", (0, 0, 0)), float)
    types = [kind.decode() if isinstance(kind, bytes) else str(kind) for kind in annotations["types"][()]]
    for kind, location in zip(types, annotations["locations"][()], strict=True):
        if kind not in SITES:
            continue
        centre = (np.asarray(location, float) + offset) / nm - begin
        low = np.maximum(np.ceil(centre - radius_nm / nm), 0).astype(int)
        high = np.minimum(np.floor(centre + radius_nm / nm) + 1, shape).astype(int)
        if (low >= high).any():
            continue
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        axes = np.ogrid[box]
        distance = sum(((axis - c) * n) ** 2 for axis, c, n in zip(axes, centre, nm, strict=True))
        nearer = (distance <= radius_nm**2) & (distance < nearest[box])
        out[box][nearer] = SITES[kind]
        nearest[box][nearer] = distance[nearer]
    return out


def dataset(top: Any, hdf: Path, name: str) -> Any:
    """Return a 3-D dataset of a CREMI file."""
    if name not in top or getattr(top[name], "ndim", 0) != 3:
        raise InputError(hdf, f"no volume {name}", "a CREMI sample with labels, such as sample_B_padded_20160501.hdf")
    found = top[name]
    if not found.size:
        raise InputError(hdf, f"{name} of shape {found.shape}", "a volume with voxels")
    if found.dtype != np.uint8 if name == "volumes/raw" else found.dtype.kind not in "iu":
        wants = "bytes (uint8)" if name == "volumes/raw" else "whole numbers"
        raise InputError(hdf, f"{name} of type {found.dtype}", wants)
    return found


def like(ids: Any, other: Any, hdf: Path) -> Any:
    """Return the second volume of labels, which must be as large as the first."""
    if other.shape != ids.shape:
        raise InputError(hdf, f"{other.name} of shape {other.shape}", f"{ids.shape}, the shape of neuron_ids")
    return other


def triple(of: Any, name: str, default: tuple[int, int, int], hdf: Path) -> NDArray[np.float64]:
    """Return an attribute (z, y, x) in nanometres."""
    value = of.attrs.get(name, default)
    try:
        found = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        found = np.array(np.nan)
    if found.shape != (3,) or not np.isfinite(found).all():
        raise InputError(hdf, f"{of.name} with {name} {value}", "three numbers z, y, x in nanometres")
    return found


def resolution(raw: Any, hdf: Path) -> NDArray[np.float64]:
    """Return the voxel size (z, y, x) in nanometres."""
    found = triple(raw, "resolution", (40, 4, 4), hdf)
    if (found <= 0).any():
        raise InputError(hdf, f"resolution {found.tolist()}", "nanometres above 0")
    return found


def labelled(hdf: Path, raw: Any, ids: Any, even: bool = True) -> list[tuple[int, int]]:
    """Return the labelled box in voxels of the image, (begin, end) along z, y, x, with `even` sides in y and x.

    The attribute `offset` gives the box's begin in nanometres.
    """
    begin = np.rint(triple(ids, "offset", (0, 0, 0), hdf) / resolution(raw, hdf)).astype(int).tolist()
    box = [(b, b + n) for b, n in zip(begin, ids.shape, strict=True)]
    if any(low < 0 or high > whole for (low, high), whole in zip(box, raw.shape, strict=True)):
        raise InputError(hdf, f"labels {ids.shape} from {begin} on", f"a box inside the image, {raw.shape}")
    if not even:
        return box
    return [box[0], *((low, low + (high - low) // 2 * 2) for low, high in box[1:])]


def image(raw: Any, box: Sequence[tuple[int, int]], pad: tuple[int, int, int], factor: int = 2) -> NDArray[Any]:
    """Return the image of a box, averaged over factor x factor and padded by `pad` voxels; mirror at the file's end."""
    index = []
    for (low, high), reach, whole in zip(box, (pad[0], factor * pad[1], factor * pad[2]), raw.shape, strict=True):
        # The indices of the voxels to read; they run backwards beyond the ends of the file.
        wanted = np.arange(low - reach, high + reach) % (2 * whole)
        index.append(np.minimum(wanted, 2 * whole - 1 - wanted))
    sections = []
    for z in index[0]:
        plane = raw[int(z)][np.ix_(index[1], index[2])]
        if factor == 1:
            sections.append(plane)
            continue
        full = plane.astype(np.uint16)
        total = full[0::2, 0::2] + full[0::2, 1::2] + full[1::2, 0::2] + full[1::2, 1::2]
        sections.append(((total + 2) // 4).astype(np.uint8))
    return np.stack(sections)


def labels(ids: Any, pad: tuple[int, int, int], factor: int = 2) -> NDArray[Any]:
    """Pad labels with zeros; with `factor` 2, first reduce 2x2 voxels to the most frequent id (ties: the first)."""
    if factor == 1:
        whole = ids[()].astype(np.uint64)
        return np.pad(np.where(whole == NOTHING, np.uint64(0), whole), [(p, p) for p in pad])
    depth, height, width = (int(n) // f for n, f in zip(ids.shape, (1, 2, 2), strict=True))
    half = np.zeros((depth, height, width), np.uint64)
    for z in range(depth):
        full = ids[z][: 2 * height, : 2 * width].astype(np.uint64)
        full[full == NOTHING] = 0
        a, b, c, d = (full[y::2, x::2] for y in (0, 1) for x in (0, 1))
        most = np.where((a == b) | (a == c) | (a == d), a, np.where((b == c) | (b == d), b, np.where(c == d, c, a)))
        half[z] = most
    return np.pad(half, [(p, p) for p in pad])
