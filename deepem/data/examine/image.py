"""Find faults of an image: bad sections, wrapped integers, NaN, and a wrong section axis."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.examine.finding import Finding

Array = NDArray[Any]

TILE = 384
"""Side of the central square of each section that is examined."""

UNRELATED = 0.15
"""If neighbouring sections correlate less than this, the image is noise."""

SWAPPED = 0.08
"""Sections in another order must correlate this much better to count as out of order."""

MOST_GAPS = 12
"""Number of places where neighbouring sections fit worst that are tried as the ends of a block in reverse."""

COARSE = 2.0
"""An axis is the coarse one if its neighbours differ this many times as much as neighbours on the other axes."""


ISOTROPIC = 1.25
"""Largest ratio of the voxel size along z to that along y and x at which voxels count as isotropic."""


def tiles_of(image: Array) -> Array:
    """Return the central square of each section (Z, Y, X)."""
    y, x = (max((n - TILE) // 2, 0) for n in image.shape[1:])
    return image[:, y : y + TILE, x : x + TILE]


def image_findings(image: Array, voxel_size_nm: Sequence[float] | None) -> list[Finding]:
    """Return the faults of an image (Z, Y, X)."""
    found: list[Finding] = []
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        bad = np.argwhere(~np.isfinite(image))
        return [Finding("nan", f"{len(bad)} voxels are no numbers, the first at {tuple(bad[0].tolist())}",
                        "write the image again, with a number at every voxel")]  # fmt: skip
    tiles = tiles_of(image).astype(np.float32)
    found += wrapped(image, tiles)
    if not found:  # sections of noise do not correlate at all
        found += sections(image, tiles) + axis_of_sections(tiles, voxel_size_nm)
    return found


def wrapped(image: Array, tiles: Array) -> list[Finding]:
    """Find integers that wrapped around: neighbours at opposite ends of the range."""
    inside = tiles[tiles.std((1, 2)) > 0]
    if not len(inside):
        return []
    related = _correlation(inside[:, :, 1:], inside[:, :, :-1])
    remedy = "convert the original anew: scale its range to 0..255 before the cast"
    if related < UNRELATED:
        what = f"neighbours in x are unrelated (correlation {related:.2f}): noise, or integers that ran over"
        return [Finding("wrapped", what, remedy)]
    if image.dtype.kind in "iu":
        top = np.iinfo(image.dtype).max if image.dtype.itemsize < 4 else int(inside.max())
        jumps = np.abs(np.diff(inside, axis=2)) / top
        far, middling = float((jumps > 0.8).mean()), float(((jumps > 0.45) & (jumps <= 0.65)).mean())
        if far > 0.004 and far > 2 * middling:
            what = f"{far:.1%} of the neighbours in x jump from one end of the range to the other: integers ran over"
            return [Finding("wrapped", what, remedy)]
    return []


def sections(image: Array, tiles: Array) -> list[Finding]:
    """Find sections that are empty, constant, repeated or out of order."""
    found: list[Finding] = []
    flat = [z for z, section in enumerate(image) if section.min() == section.max()]
    if flat:
        what = f"{_sections(flat)} {'is' if len(flat) == 1 else 'are'} empty: one value throughout"
        found.append(Finding("empty section", what, "take them out by a mask, or read the original again"))
    same = [z for z in range(1, len(image)) if z not in flat and np.array_equal(image[z], image[z - 1])]
    if same:
        what = f"{_sections(same)} repeat{'s' if len(same) == 1 else ''} the one before, voxel by voxel"
        found.append(Finding("repeated section", what, "mask the copies, or find the sections that they stand for"))
    skip = {*flat, *same}
    small = tiles[:, ::2, ::2] if min(tiles.shape[1:]) >= 64 else tiles
    kept = [z for z in range(len(image)) if z not in skip]
    found += _order(small[kept], kept)
    return found


def _order(tiles: Array, numbers: Sequence[int]) -> list[Finding]:
    """Find neighbouring sections that fit better when swapped, and single sections that fit better elsewhere."""
    count = len(tiles)
    if count < 4:
        return []
    related = np.eye(count)
    for gap in (1, 2):
        for z in range(count - gap):
            related[z, z + gap] = related[z + gap, z] = _correlation(tiles[z], tiles[z + gap])
    near, apart = np.diag(related, 1), np.diag(related, 2)
    exchanged = [
        numbers[z] for z in range(1, count - 2)
        if apart[z - 1] + apart[z] - near[z - 1] - near[z + 1] > SWAPPED and near[z] > UNRELATED
    ]  # fmt: skip
    odd = [
        numbers[z] for z in range(1, count - 1)
        if apart[z - 1] - max(near[z - 1], near[z]) > 2 * SWAPPED
        and not {numbers[z], numbers[z] - 1, numbers[z] + 1} & set(exchanged)
    ]  # fmt: skip
    found = []
    if exchanged:
        what = f"{_sections(exchanged)} and the next fit their neighbours better the other way round"
        found.append(Finding("out of order", what, "look at the order of the files that the volume was made of"))
    if odd:
        what = f"{_sections(odd)} fits neither neighbour, which fit each other: from elsewhere, or damaged"
        found.append(Finding("out of order", what, "look at it, and move or mask it"))
    for first, last in _reversed(tiles, near):
        what = f"sections {numbers[first]} to {numbers[last]} fit their neighbours better in reverse"
        found.append(Finding("out of order", what, "look at the order of the files that the volume was made of"))
    return found


def _reversed(tiles: Array, near: Array) -> Iterator[tuple[int, int]]:
    """Return the first and last section of blocks of three or more that fit better in reverse.

    Sections fit badly at both ends of such a block, and well where its ends are exchanged.
    """
    gaps = [int(z) for z in np.argsort(near)[:MOST_GAPS] if near[z] < np.median(near) - SWAPPED]
    for before, last in itertools.combinations(sorted(gaps), 2):
        if last - before >= 3:
            better = _correlation(tiles[before], tiles[last]) + _correlation(tiles[before + 1], tiles[last + 1])
            if better - near[before] - near[last] > 2 * SWAPPED:
                yield before + 1, last


def axis_of_sections(tiles: Array, voxel_size_nm: Sequence[float] | None) -> list[Finding]:
    """Compare the axis along which the image changes most per voxel with the coarse axis of the voxel size."""
    if min(tiles.shape) < 8:
        return []
    z, y, x = differences(tiles)
    if z < min(y, x) / COARSE or max(y, x) > COARSE * max(z, min(y, x)):
        coarse = "x" if x > y else "y"
        if max(y, x) > COARSE * max(z, min(y, x)):
            what = f"neighbours in {coarse} differ {max(y, x) / max(min(z, y, x), 1e-9):.1f} times as much as others"
            return [Finding("axes", f"{what}: {coarse} looks like the axis of the sections",
                            "store the volume as (Z, Y, X), the axis of the sections first")]  # fmt: skip
    if voxel_size_nm is None:
        return []
    if max(voxel_size_nm) < 1:
        what = f"the voxel size {tuple(voxel_size_nm)} nm is smaller than atoms: micrometres?"
        return [Finding("voxel size", what, "write it in nanometres")]
    told = voxel_size_nm[0] / float(np.mean(voxel_size_nm[1:]))
    if told < 1 / COARSE:
        what = f"the voxel size {tuple(voxel_size_nm)} nm (z, y, x) is smallest along z"
        return [Finding("voxel size", what, "write it as (z, y, x)")] if z >= 0.9 * min(y, x) else []
    seen = z / max(float(np.mean([y, x])), 1e-9)
    if told >= 3 and seen < 1.05:
        what = f"z is as smooth as y and x ({seen:.2f}), but the voxel size says {told:.1f} times as coarse"
        return [Finding("voxel size", what, "look at the axes of the file, and at its voxel size")]
    if told <= ISOTROPIC and seen > COARSE:
        what = f"z changes {seen:.1f} times as much as y and x, but the voxel size says {told:.1f} times as coarse"
        return [Finding("voxel size", what, "look at the voxel size of the file")]
    return []


def differences(tiles: Array) -> tuple[float, float, float]:
    """Return the mean difference of neighbours along z, y and x, in standard deviations of the image."""
    spread = float(tiles.std()) or 1.0
    z, y, x = (float(np.mean(np.abs(np.diff(tiles, axis=axis)))) / spread for axis in range(3))
    return z, y, x


def _correlation(a: Array, b: Array) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt(np.mean(a * a, dtype=np.float64) * np.mean(b * b, dtype=np.float64)))
    return float(np.mean(a * b, dtype=np.float64)) / scale if scale > 0 else 0.0


def _sections(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"section {shown}" if len(numbers) == 1 else f"{len(numbers)} sections ({shown})"
