"""Scores of a segmentation against the truth: adapted Rand error, variation of information, CREMI score.

All scores are computed from the overlap table, so one pass over the voxels serves them all, and blocks added one by one
give the same digits as the whole volume. In the formulas, c(t, s) is the number of voxels in true object t and segment
s, n(t) and n(s) are its sums over segments and over objects, and n is the total. Voxels whose truth is 0 never count.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from deepem.evaluate.overlaps import Array, Overlaps, Table

NAN = float("nan")

CREMI_FORMULA = "sqrt(adapted_rand * (voi_split + voi_merge))"

Scores = dict[str, Any]


class PartitionScore:
    """Base class of the scores in this module: blocks go into an overlap table, which other scores may share.

    Args:
        overlaps: A table that the caller fills; by default the score has its own.
    """

    def __init__(self, overlaps: Overlaps | None = None) -> None:
        self.overlaps = Overlaps() if overlaps is None else overlaps

    def add(self, segmentation: Array, truth: Array, *, mask: Array | None = None) -> None:
        """Add a block; voxels where the mask is 0 do not count."""
        self.overlaps.add(segmentation, truth, mask=mask)


class AdaptedRand(PartitionScore):
    """Adapted Rand error, block by block; see `adapted_rand`."""

    def result(self) -> dict[str, float]:
        """Return `error`, `precision` and `recall`; NaN where nothing is labelled."""
        return adapted_rand_of(self.overlaps.table())


class Voi(PartitionScore):
    """Variation of information, block by block; see `voi`."""

    def result(self) -> dict[str, float]:
        """Return `split` and `merge` in bits; NaN where nothing is labelled."""
        return voi_of(self.overlaps.table())


class Cremi(PartitionScore):
    """CREMI score, block by block; see `cremi`."""

    def result(self) -> Scores:
        """Return `score`, its parts `adapted_rand`, `voi_split` and `voi_merge`, and the `formula`."""
        return cremi_of(self.overlaps.table())


def adapted_rand(segmentation: Array, truth: Array, *, mask: Array | None = None) -> dict[str, float]:
    """Adapted Rand error of a segmentation: 1 - F1 over pairs of voxels that are in the same segment.

    As in CREMI and SNEMI3D, a voxel also forms a pair with itself (scikit-image leaves these pairs out). Each voxel
    that is 0 in the segmentation counts as a segment of its own. With n0 such voxels,

        recall    = (sum over s > 0 of c(t, s)^2 + n0) / sum of n(t)^2               falls where objects are split
        precision = (sum over s > 0 of c(t, s)^2 + n0) / (sum over s > 0 of n(s)^2 + n0)   falls where they are merged

    Source: Arganda-Carreras et al. 2015, doi:10.3389/fnana.2015.00142. scikit-image returns precision and recall in the
    other order.

    Args:
        segmentation: Ids, any integer type and shape; 0 is no segment.
        truth: Ids of the same shape; 0 is not labelled and does not count.
        mask: Voxels where it is 0 do not count.

    Returns:
        `error`, `precision` and `recall`; NaN where nothing is labelled.

    Raises:
        InputError: the shapes differ, or an array does not hold whole numbers from 0 on.
    """
    score = AdaptedRand()
    score.add(segmentation, truth, mask=mask)
    return score.result()


def voi(segmentation: Array, truth: Array, *, mask: Array | None = None) -> dict[str, float]:
    """Variation of information in bits, as a split term and a merge term.

        split = H(segmentation | truth) = sum of c(t, s) / n * log2(n(t) / c(t, s))
        merge = H(truth | segmentation) = sum of c(t, s) / n * log2(n(s) / c(t, s))

    Segment 0 counts as one segment like any other.

    Source: Meila 2007, doi:10.1016/j.jmva.2006.11.013.

    Args:
        segmentation: Ids, any integer type and shape.
        truth: Ids of the same shape; 0 is not labelled and does not count.
        mask: Voxels where it is 0 do not count.

    Returns:
        `split` and `merge`; NaN where nothing is labelled.

    Raises:
        InputError: the shapes differ, or an array does not hold whole numbers from 0 on.
    """
    score = Voi()
    score.add(segmentation, truth, mask=mask)
    return score.result()


def cremi(segmentation: Array, truth: Array, *, mask: Array | None = None) -> Scores:
    """The CREMI score, the geometric mean of adapted Rand error and variation of information; 0 is perfect.

    score = sqrt(adapted_rand * (voi_split + voi_merge)), each as defined in this module. (The published program of
    the challenge weights predicted 0 otherwise in its adapted Rand error.)

    Source: https://cremi.org/metrics.

    Args:
        segmentation: Ids, any integer type and shape.
        truth: Ids of the same shape; 0 is not labelled and does not count.
        mask: Voxels where it is 0 do not count.

    Returns:
        `score`, its parts `adapted_rand`, `voi_split` and `voi_merge`, and the `formula`.

    Raises:
        InputError: the shapes differ, or an array does not hold whole numbers from 0 on.
    """
    score = Cremi()
    score.add(segmentation, truth, mask=mask)
    return score.result()


def adapted_rand_of(table: Table) -> dict[str, float]:
    """Adapted Rand error of an overlap table; integer arithmetic of any length up to the last division."""
    table = table.labelled
    if not table.truth.size:
        return {"error": NAN, "precision": NAN, "recall": NAN}
    alone = int(table.voxels[table.segment == 0].sum())
    segmented = table.where(table.segment != 0)
    together = squares(segmented.voxels) + alone
    in_truth = squares(table.by_truth()[1])
    in_segments = squares(segmented.by_segment()[1]) + alone
    return {
        "error": (in_truth + in_segments - 2 * together) / (in_truth + in_segments),
        "precision": together / in_segments,
        "recall": together / in_truth,
    }


def voi_of(table: Table) -> dict[str, float]:
    """Variation of information of an overlap table."""
    table = table.labelled
    if not table.truth.size:
        return {"split": NAN, "merge": NAN}
    n = int(table.voxels.sum())
    split, merge = bits(table)
    return {"split": math.fsum(split) / n, "merge": math.fsum(merge) / n}


def cremi_of(table: Table) -> Scores:
    """CREMI score of an overlap table."""
    rand, information = adapted_rand_of(table)["error"], voi_of(table)
    split, merge = information["split"], information["merge"]
    return {
        "score": math.sqrt(rand * (split + merge)),
        "adapted_rand": rand,
        "voi_split": split,
        "voi_merge": merge,
        "formula": CREMI_FORMULA,
    }


def bits(table: Table) -> tuple[Array, Array]:
    """Contribution of each pair to split and merge: c * log2(n(t) / c) and c * log2(n(s) / c), in bits times voxels."""
    found = []
    for ids, (distinct, sizes) in ((table.truth, table.by_truth()), (table.segment, table.by_segment())):
        whole = sizes[np.searchsorted(distinct, ids)]
        found.append(table.voxels * np.log2(whole / table.voxels))
    return found[0], found[1]


def squares(counts: Array) -> int:
    """The exact sum of squares; for ten billion voxels it does not fit into 64 bits."""
    return sum(count * count for count in counts.tolist())
