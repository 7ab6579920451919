"""Scores of a segmentation against the truth: adapted Rand error, variation of information, CREMI score.

All are made from the table of overlaps, so any of them can be had from one look at the voxels, and blocks added one
by one give the same digits as the whole volume. With c(t, s) voxels in true object t and segment s, n of them in all,
n(t) and n(s) the sums over segments and over objects; voxels whose truth is 0 never count.
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
    """What the scores of this module share: blocks go into a table, which may be shared with other scores.

    Args:
        overlaps: A table that is filled elsewhere; by default this score has its own.
    """

    def __init__(self, overlaps: Overlaps | None = None) -> None:
        self.overlaps = Overlaps() if overlaps is None else overlaps

    def add(self, segmentation: Array, truth: Array, *, mask: Array | None = None) -> None:
        """Count a block; voxels of mask 0 do not count."""
        self.overlaps.add(segmentation, truth, mask=mask)


class AdaptedRand(PartitionScore):
    """Adapted Rand error, block by block; see `adapted_rand`."""

    def result(self) -> dict[str, float]:
        """`error`, `precision` and `recall`; NaN where nothing is labelled."""
        return adapted_rand_of(self.overlaps.table())


class Voi(PartitionScore):
    """Variation of information, block by block; see `voi`."""

    def result(self) -> dict[str, float]:
        """`split` and `merge` in bits; NaN where nothing is labelled."""
        return voi_of(self.overlaps.table())


class Cremi(PartitionScore):
    """CREMI score, block by block; see `cremi`."""

    def result(self) -> Scores:
        """`score`, its parts `adapted_rand`, `voi_split` and `voi_merge`, and the `formula`."""
        return cremi_of(self.overlaps.table())


def adapted_rand(segmentation: Array, truth: Array, *, mask: Array | None = None) -> dict[str, float]:
    """Adapted Rand error of a segmentation: 1 - F1 of the pairs of voxels that are put together.

    A pair of voxels may be a voxel with itself, as CREMI and SNEMI3D count (scikit-image leaves those out). Voxels that
    the segmentation leaves at 0 are segments of one voxel each. With n0 of them,

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
    """Variation of information in bits: what is cut too much and what is joined too much.

        split = H(segmentation | truth) = sum of c(t, s) / n * log2(n(t) / c(t, s))
        merge = H(truth | segmentation) = sum of c(t, s) / n * log2(n(s) / c(t, s))

    Voxels that the segmentation leaves at 0 are one segment like any other.

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
    """Adapted Rand error of a table of overlaps, in whole numbers of any length up to the last division."""
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
    """Variation of information of a table of overlaps."""
    table = table.labelled
    if not table.truth.size:
        return {"split": NAN, "merge": NAN}
    n = int(table.voxels.sum())
    split, merge = bits(table)
    return {"split": math.fsum(split) / n, "merge": math.fsum(merge) / n}


def cremi_of(table: Table) -> Scores:
    """CREMI score of a table of overlaps."""
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
    """What each pair adds to split and merge: c * log2(n(t) / c) and c * log2(n(s) / c), in bits times voxels."""
    found = []
    for ids, (distinct, sizes) in ((table.truth, table.by_truth()), (table.segment, table.by_segment())):
        whole = sizes[np.searchsorted(distinct, ids)]
        found.append(table.voxels * np.log2(whole / table.voxels))
    return found[0], found[1]


def squares(counts: Array) -> int:
    """The sum of squares, exactly: that of ten billion voxels does not fit into 64 bits."""
    return sum(count * count for count in counts.tolist())
