"""Detection scores of small structures such as synapses, matched by overlap or by distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepem.evaluate.matching import matched
from deepem.evaluate.overlaps import Array, Overlaps, Table
from deepem.evaluate.voxels import counted
from deepem.utils.errors import InputError


class Detections:
    """Detection scores, block by block; see `detections`."""

    def __init__(
        self,
        *,
        distance_nm: float | None = None,
        min_overlap: int = 1,
        voxel_size_nm: Sequence[float] = (1, 1, 1),
    ) -> None:
        if distance_nm is not None and distance_nm <= 0:
            raise InputError("distance_nm", distance_nm, "a distance above 0")
        if min_overlap < 1:
            raise InputError("min_overlap", min_overlap, "1 voxel or more")
        self.distance_nm, self.min_overlap = distance_nm, min_overlap
        self.voxel_size_nm = np.asarray(voxel_size_nm, float)
        self.overlaps = Overlaps(places=True)

    def add(self, labels: Array, truth: Array, *, mask: Array | None = None, begin: Sequence[int] = (0, 0, 0)) -> None:
        """Add a block (Z, Y, X) that begins at `begin`; voxels where the mask is 0 do not count."""
        self.overlaps.add(labels, truth, mask=mask, begin=begin)

    def result(self) -> dict[str, Any]:
        """Return the scores, and the ids of missed objects and false alarms."""
        table = self.overlaps.table()
        predicted, true = (np.setdiff1d(ids, [np.uint64(0)]) for ids in (table.segment, table.truth))
        a, b, quality = self._by_overlap(table) if self.distance_nm is None else self._by_distance(table)
        chosen = matched(a, b, quality)
        hits = len(chosen)
        scores = counted(hits, len(predicted) - hits, len(true) - hits)
        return {
            **{name: scores[name] for name in ("precision", "recall", "f1")},
            "found": hits,
            "missed": np.setdiff1d(true, b[chosen]).tolist(),
            "false_alarms": np.setdiff1d(predicted, a[chosen]).tolist(),
            **({"min_overlap": self.min_overlap} if self.distance_nm is None else {"distance_nm": self.distance_nm}),
        }

    def _by_overlap(self, table: Table) -> tuple[Array, Array, Array]:
        both = table.where((table.truth != 0) & (table.segment != 0) & (table.voxels >= self.min_overlap))
        return both.segment, both.truth, both.voxels / max(int(both.voxels.max(initial=1)), 1)

    def _by_distance(self, table: Table) -> tuple[Array, Array, Array]:
        from scipy.spatial import cKDTree

        assert self.distance_nm is not None
        (predicted, at), (true, there) = (self._centroids(table, truth=side) for side in (False, True))
        if not (len(predicted) and len(true)):
            return predicted[:0], true[:0], np.zeros(0)
        near = cKDTree(at).query_ball_point(there, self.distance_nm)
        b = np.repeat(np.arange(len(true)), [len(some) for some in near])
        a = np.array([i for some in near for i in sorted(some)], np.int64)
        distance = np.linalg.norm(at[a] - there[b], axis=1)
        return predicted[a], true[b], np.clip(1 - distance / self.distance_nm, 0, 1)

    def _centroids(self, table: Table, *, truth: bool) -> tuple[Array, Array]:
        ids = table.truth if truth else table.segment
        assert table.sums is not None
        distinct, inverse = np.unique(ids, return_inverse=True)
        sums, voxels = np.zeros((len(distinct), 3), np.int64), np.zeros(len(distinct), np.int64)
        np.add.at(sums, inverse, table.sums)
        np.add.at(voxels, inverse, table.voxels)
        real = distinct != 0
        return distinct[real], sums[real] / voxels[real, None] * self.voxel_size_nm


def detections(
    labels: Array,
    truth: Array,
    *,
    distance_nm: float | None = None,
    min_overlap: int = 1,
    voxel_size_nm: Sequence[float] = (1, 1, 1),
    mask: Array | None = None,
) -> dict[str, Any]:
    """Precision, recall and F1 of detected objects, such as synaptic clefts.

    A predicted and a true object can match if they share `min_overlap` voxels or, if a distance is given, if their
    centroids are within that distance. Each object has at most one match. Matches are assigned so that their number is
    maximal, and then so that their total overlap is largest or their total distance smallest. A detection that covers
    two synapses therefore finds only one of them.

    Args:
        labels: (Z, Y, X) ids of the detected objects; 0 is background.
        truth: (Z, Y, X) ids; 0 is background.
        distance_nm: Largest distance between matching centroids.
        min_overlap: Smallest overlap of matching objects, in voxels.
        voxel_size_nm: (z, y, x) size of a voxel, for distances.
        mask: Voxels where it is 0 do not count.

    Returns:
        `precision`, `recall`, `f1`, the number `found`, the ids of `missed` and `false_alarms`, and the matching
        criterion. Undefined values are NaN: precision without a detection, recall without an object.

    Raises:
        InputError: the shapes differ, or a limit is not above 0.
    """
    score = Detections(distance_nm=distance_nm, min_overlap=min_overlap, voxel_size_nm=voxel_size_nm)
    score.add(labels, truth, mask=mask)
    return score.result()
