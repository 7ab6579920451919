"""Find faults of a label: wrong dtype or values, and ids that are split or shared."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.examine.finding import Finding

Array = NDArray[Any]

SPLIT = 0.05
"""If a smaller share of voxels keeps its id in the next section, each section was numbered separately."""

PIECES = 1.75
"""If ids have this many separate bodies on average, several objects share an id."""

SMALL = 30
"""Bodies with fewer voxels are ignored."""


def type_findings(label: Array, ids: bool) -> list[Finding]:
    """Return the faults in the values of a label (Z, Y, X), without its image."""
    if label.dtype.kind == "f":
        whole = bool((label == np.trunc(label)).all()) if np.isfinite(label).all() else False
        if ids or not whole:
            got = "fractions" if not whole else "whole numbers"
            return [
                Finding("float label", f"the label is {label.dtype}, of {got}", "store whole numbers, such as uint32")
            ]
        return []
    if label.dtype.kind not in "biu":
        return [Finding("float label", f"the label is of type {label.dtype}", "store whole numbers, such as uint32")]
    low, high = int(label.min()), int(label.max())
    if low < 0:
        return [
            Finding("ids beyond the type", f"the label {low}, below 0", "0 for background; a mask for the unlabelled")
        ]
    if ids and high > np.iinfo(np.int64).max:
        return [Finding("ids beyond the type", f"the label {high}, which int64 does not hold", "relabel from 1")]
    if label.dtype.itemsize > 1 and high == np.iinfo(label.dtype).max:
        what = f"the label {high}, the greatest of its type: a mark for voxels without a label"
        return [Finding("ids beyond the type", what, "0 in its place, or a mask over these voxels")]
    if not high:
        return [
            Finding("all zero", "the label is 0 throughout", "another file, or leave it out: its task is then masked")
        ]
    return []


def id_findings(label: Array) -> list[Finding]:
    """Check that instance ids (Z, Y, X) continue across sections, and that each id is one body."""
    found: list[Finding] = []
    label = np.ascontiguousarray(label)
    inside = label[:-1] > 0
    if len(label) > 2 and inside.any():
        goes_on = float(np.mean((label[:-1] == label[1:])[inside]))
        within = float(np.mean((label[:, :, :-1] == label[:, :, 1:])[label[:, :, :-1] > 0]))
        if goes_on < SPLIT < 0.5 < within:
            what = f"only {goes_on:.0%} of the voxels have their id in the next section too: numbered in each section"
            return [Finding("ids per section", what, "join the instances over the sections before training on them")]
    pieces, count = bodies(label[label.any((1, 2))])  # a section without labels parts no body
    if count >= 2 and pieces > PIECES:
        what = f"an id lies in {pieces:.1f} separate bodies on average: ids are shared, or wrapped around their type"
        found.append(Finding("ids merged", what, "relabel connected components, or read the ids in a wider type"))
    return found


def bodies(label: Array) -> tuple[float, int]:
    """Return the mean number of separate bodies per id, ignoring small bodies, and the number of ids."""
    import cc3d

    parts = np.asarray(cc3d.connected_components(label.astype(np.uint64, copy=False), connectivity=26))
    sizes = np.bincount(parts.ravel())
    first = np.zeros(len(sizes), np.uint64)
    first[parts.ravel()] = label.ravel()
    kept = (sizes >= SMALL) & (first > 0)
    ids = np.unique(first[kept])
    return (float(kept.sum()) / len(ids) if len(ids) else 0.0), len(ids)
