"""CREMI's file of sample B as volumes of `deepem.data.dataset.flyem.cremi_b`, at 8 nm in plane."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from deepem.data.borders import eroded
from deepem.data.truth_folder import masks
from deepem.utils.errors import InputError

PAD = (16, 256, 256)
"""Unlabelled voxels (z, y, x) on each side, at 8 nm in plane."""

NOTHING = np.uint64(2**64 - 1)
"""What CREMI writes where there is no cleft, or no neuron."""


def convert(hdf: Path, pad: tuple[int, int, int] = PAD, glia_ids: Sequence[int] = ()) -> dict[str, NDArray[Any]]:
    """The volumes of the folder, (Z, Y, X), from a CREMI file.

    Raises:
        InputError: the file cannot be read, or is none of CREMI's with labels.
    """
    try:
        with h5py.File(hdf, "r") as top:
            raw, ids = dataset(top, hdf, "volumes/raw"), dataset(top, hdf, "volumes/labels/neuron_ids")
            out = {"img": image(raw, labelled(hdf, raw, ids), pad), "seg": labels(ids, pad)}
            for key, name in (("syn", "clefts"), ("glia", "glia")):
                if f"volumes/labels/{name}" in top:
                    found = labels(dataset(top, hdf, f"volumes/labels/{name}"), pad)
                    out[key] = (found > 0).astype(np.uint8)
    except (OSError, RuntimeError) as error:
        raise InputError(hdf, f"a file that cannot be read ({' '.join(str(error).split())})", "CREMI's file") from error
    if glia_ids:
        out["glia"] = np.isin(out["seg"], glia_ids).astype(np.uint8)
    out["seg"] = out["seg"].astype(np.uint32) if out["seg"].max(initial=0) < 2**32 else out["seg"]
    out["seg_d3_b0"] = eroded(out["seg"])
    shape = out["img"].shape
    z, y, x = (slice(p, n - p) for p, n in zip(pad, shape, strict=True))
    return {**out, **masks(shape, (z, y, x))}


def dataset(top: Any, hdf: Path, name: str) -> Any:
    """A 3-D dataset of a CREMI file."""
    if name not in top or top[name].ndim != 3:
        raise InputError(hdf, f"no volume {name}", "a CREMI sample with labels, such as sample_B_padded_20160501.hdf")
    return top[name]


def labelled(hdf: Path, raw: Any, ids: Any) -> list[tuple[int, int]]:
    """The labelled box in voxels of the image, (begin, end) along z, y, x, with even sides in y and x.

    CREMI says where it begins in nanometres, as the attribute `offset`.
    """
    nm = np.asarray(raw.attrs.get("resolution", (40, 4, 4)), float)
    begin = np.rint(np.asarray(ids.attrs.get("offset", (0, 0, 0)), float) / nm).astype(int).tolist()
    box = [(b, b + n) for b, n in zip(begin, ids.shape, strict=True)]
    if any(low < 0 or high > whole for (low, high), whole in zip(box, raw.shape, strict=True)):
        raise InputError(hdf, f"labels {ids.shape} from {begin} on", f"a box inside the image, {raw.shape}")
    return [box[0], *((low, low + (high - low) // 2 * 2) for low, high in box[1:])]


def image(raw: Any, box: Sequence[tuple[int, int]], pad: tuple[int, int, int]) -> NDArray[Any]:
    """The image of a box and `pad` voxels of 8 nm around it, averaged over 2x2; mirrored where the file ends."""
    index = []
    for (low, high), reach, whole in zip(box, (pad[0], 2 * pad[1], 2 * pad[2]), raw.shape, strict=True):
        # Which voxels of the file: beyond its ends the order runs backwards.
        wanted = np.arange(low - reach, high + reach) % (2 * whole)
        index.append(np.minimum(wanted, 2 * whole - 1 - wanted))
    sections = []
    for z in index[0]:
        full = raw[int(z)][np.ix_(index[1], index[2])].astype(np.uint16)
        total = full[0::2, 0::2] + full[0::2, 1::2] + full[1::2, 0::2] + full[1::2, 1::2]
        sections.append(((total + 2) // 4).astype(np.uint8))
    return np.stack(sections)


def labels(ids: Any, pad: tuple[int, int, int]) -> NDArray[Any]:
    """Labels at 8 nm in plane with zeros around: of each 2x2 voxels the most frequent id, of equals the first."""
    depth, height, width = (int(n) // f for n, f in zip(ids.shape, (1, 2, 2), strict=True))
    half = np.zeros((depth, height, width), np.uint64)
    for z in range(depth):
        full = ids[z][: 2 * height, : 2 * width].astype(np.uint64)
        full[full == NOTHING] = 0
        a, b, c, d = (full[y::2, x::2] for y in (0, 1) for x in (0, 1))
        most = np.where((a == b) | (a == c) | (a == d), a, np.where((b == c) | (b == d), b, np.where(c == d, c, a)))
        half[z] = most
    return np.pad(half, [(p, p) for p in pad])
