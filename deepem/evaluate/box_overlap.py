"""Bounding boxes of labels, and the overlap between boxes."""

from __future__ import annotations

import numpy as np

from deepem.evaluate.overlaps import Array, Table

ROWS = 1024
"""Number of boxes that are compared with all others at a time."""


def bounding_boxes(table: Table, *, truth: bool) -> tuple[Array, Array]:
    """Return the ids except 0, ascending, and the bounding box (N, 6) of each: z1, y1, x1, z2, y2, x2, half-open.

    Args:
        table: Overlap table counted with `places=True`.
        truth: Return boxes of the truth; otherwise of the segmentation.
    """
    ids = table.truth if truth else table.segment
    assert table.begin is not None
    assert table.end is not None
    order = np.argsort(ids, kind="stable")
    order = order[ids[order] != 0]
    ids = ids[order]
    if not ids.size:
        return ids, np.zeros((0, 6), np.int64)
    first = np.flatnonzero(np.append(True, ids[1:] != ids[:-1]))
    low = np.minimum.reduceat(table.begin[order], first)
    high = np.maximum.reduceat(table.end[order], first)
    return ids[first], np.concatenate([low, high], 1)


def overlapping(a: Array, b: Array, least: float) -> tuple[Array, Array, Array]:
    """Find pairs of boxes whose IoU reaches a value above 0. Return indices into `a`, indices into `b`, and the IoU.

    Boxes are (N, 6), half-open. The full matrix of pairs is never held in memory.
    """
    found: list[tuple[Array, Array, Array]] = []
    volume_a, volume_b = (np.prod(x[:, 3:] - x[:, :3], axis=1) for x in (a, b))
    for i in range(0, len(a), ROWS):
        part = a[i : i + ROWS]
        shared = np.ones((len(part), len(b)), np.result_type(a, b))
        for axis in range(3):
            low = np.maximum(part[:, None, axis], b[None, :, axis])
            high = np.minimum(part[:, None, axis + 3], b[None, :, axis + 3])
            shared *= np.maximum(high - low, 0)
        row, column = np.nonzero(shared)
        both = shared[row, column]
        iou = both / (volume_a[i + row] + volume_b[column] - both)
        keep = iou >= least
        found.append((i + row[keep], column[keep], iou[keep]))
    columns = zip(*found, strict=True) if found else [[np.zeros(0, np.int64)]] * 2 + [[np.zeros(0)]]
    first, second, overlap = (np.concatenate(column) for column in columns)
    return first, second, overlap
