"""The worst splits and merges of a segmentation, object by object, with their bounding boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepem.evaluate.overlaps import Array, Overlaps, Table
from deepem.evaluate.partition import bits

PARTS = 5
"""Largest number of parts that a row lists."""


class Objects:
    """The worst splits and merges, block by block; see `objects`."""

    def __init__(self, top: int = 20, overlaps: Overlaps | None = None) -> None:
        self.top = top
        self.overlaps = Overlaps(places=True) if overlaps is None else overlaps

    def add(
        self, segmentation: Array, truth: Array, *, mask: Array | None = None, begin: Sequence[int] = (0, 0, 0)
    ) -> None:
        """Add a block (Z, Y, X) that begins at `begin`; voxels where the mask is 0 do not count."""
        self.overlaps.add(segmentation, truth, mask=mask, begin=begin)

    def result(self) -> dict[str, Any]:
        """Return `splits`, `merges` and `missing`."""
        table = self.overlaps.table().labelled
        n = max(int(table.voxels.sum()), 1)
        split, merge = (worth / n for worth in bits(table))
        segmented = np.flatnonzero(table.segment != 0)
        return {
            "splits": _worst(table, table.truth, table.segment, split, self.top, ("object", "segment")),
            "merges": _worst(
                table.where(segmented),
                table.segment[segmented],
                table.truth[segmented],
                merge[segmented],
                self.top,
                ("segment", "object"),
            ),
            "missing": np.setdiff1d(table.truth, table.truth[segmented]).tolist(),
        }


def objects(segmentation: Array, truth: Array, *, top: int = 20, mask: Array | None = None) -> dict[str, Any]:
    """List the most split objects and the most merging segments, worst first.

    `bits` is a row's contribution to the variation of information. All rows of `splits` add up to its split term; all
    rows of `merges`, together with segment 0, add up to its merge term.

    Args:
        segmentation: (Z, Y, X) ids.
        truth: (Z, Y, X) ids; 0 is not labelled and does not count.
        top: Number of rows of each table.
        mask: Voxels where it is 0 do not count.

    Returns:
        `splits`: rows {`object`, `bits`, `voxels`, `parts` (their number), `largest` (`segment`, `voxels`, `begin`,
        `end` of each of the largest parts), `begin`, `end`}. `begin` and `end` are the half-open box of the whole
        object. A part with segment 0 was left out of the segmentation. `merges`: the same with segment and object
        exchanged, without segment 0. `missing`: objects that no segment touches.

    Raises:
        InputError: the shapes differ, or an array does not hold whole numbers from 0 on.
    """
    score = Objects(top)
    score.add(segmentation, truth, mask=mask)
    return score.result()


def _worst(
    table: Table, whole: Array, part: Array, worth: Array, top: int, names: tuple[str, str]
) -> list[dict[str, Any]]:
    """Rows of the ids in `whole` with the most bits, each with its parts, largest first."""
    if not whole.size:
        return []
    assert table.begin is not None
    assert table.end is not None
    order = np.lexsort((part, -table.voxels, whole))
    first = np.flatnonzero(np.append(True, np.diff(whole[order]) != 0))
    last = np.append(first[1:], whole.size)
    total = np.add.reduceat(worth[order], first)
    rows = []
    for i in np.lexsort((whole[order][first], -total))[:top].tolist():
        if total[i] <= 0:
            break
        parts = order[first[i] : last[i]]
        rows.append(
            {
                names[0]: int(whole[parts[0]]),
                "bits": float(total[i]),
                "voxels": int(table.voxels[parts].sum()),
                "parts": len(parts),
                "largest": [
                    {
                        names[1]: int(part[p]),
                        "voxels": int(table.voxels[p]),
                        "begin": table.begin[p].tolist(),
                        "end": table.end[p].tolist(),
                    }
                    for p in parts[:PARTS]
                ],
                "begin": table.begin[parts].min(0).tolist(),
                "end": table.end[parts].max(0).tolist(),
            }
        )
    return rows
