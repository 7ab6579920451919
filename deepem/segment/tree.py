"""The merge tree: one agglomeration that can be cut at any number of thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.segment.channels import level
from deepem.segment.graph import Ints, Table, united
from deepem.utils.errors import InputError


@dataclass(frozen=True)
class MergeTree:
    """The merges of an agglomeration, highest affinity first.

    Attributes:
        pairs: (N, 2) int64, one region from each of the two groups that a merge joins.
        scores: (N,) float64, the mean affinity between the groups, in units of 1 / 65535; never increasing.
        count: Number of regions.
        floor: The tree holds every merge above this affinity, in units of 1 / 65535.
    """

    pairs: Ints
    scores: NDArray[np.float64]
    count: int
    floor: float

    @classmethod
    def of(cls, u: Ints, v: Ints, scores: NDArray[np.float64], *, count: int, floor: float) -> MergeTree:
        """Build a tree from merges, each listed after the merges that formed its groups."""
        order = np.argsort(-scores, kind="stable")
        return cls(np.stack([u, v], axis=1)[order], scores[order], count, floor)

    def cut(self, threshold: float) -> Ints:
        """Cut the tree. Return (count,) int64, the lowest region in each region's group at a threshold.

        Raises:
            InputError: the tree does not reach down to the threshold.
        """
        lowest = level(threshold)
        if lowest < self.floor:
            raise InputError("threshold", threshold, f"{self.floor / 65535:.4g} or more, down to which the tree goes")
        return united(self.pairs[: int(np.searchsorted(-self.scores, -lowest, side="left"))], self.count)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to save."""
        return {
            "tree_pairs": self.pairs,
            "tree_scores": self.scores,
            "tree_extent": np.array([self.count, self.floor], np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> MergeTree:
        """Rebuild a tree from the result of `arrays`."""
        count, floor = arrays["tree_extent"].tolist()
        return cls(arrays["tree_pairs"], arrays["tree_scores"], int(count), floor)


def edge_list(table: Table, ids: NDArray[np.uint64]) -> NDArray[Any]:
    """The region graph in the form that proofreading tools take: a row per pair of touching fragments.

    Args:
        table: Edges between fragments.
        ids: The id of each fragment.

    Returns:
        A structured array with fields `u`, `v` (uint64, fragment ids), `affinity` (float32 in [0, 1], the mean over
        the contact) and `contact` (uint64, pairs of voxels).
    """
    fields = [("u", np.uint64), ("v", np.uint64), ("affinity", np.float32), ("contact", np.uint64)]
    rows = np.zeros(len(table), fields)
    rows["u"], rows["v"] = ids[table.pairs].T
    rows["affinity"], rows["contact"] = table.means / 65535, table.counts
    return rows
