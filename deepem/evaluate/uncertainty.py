"""Voxel-wise uncertainty of a model, and the choice of boxes that are worth annotating.

Sources: Settles 2009, Active learning literature survey; Sener and Savarese 2018, Active learning for convolutional
neural
networks: a core-set approach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from deepem.utils.geometry import Box, Vec3

Floats = NDArray[np.float32]


def entropy(probabilities: Floats, *, classes: bool = False) -> Floats:
    """The entropy of a prediction in bits: -sum p log2 p.

    Args:
        probabilities: (C, Z, Y, X) float32 in [0, 1].
        classes: The channels are mutually exclusive classes; otherwise each channel is an independent event.

    Returns:
        (Z, Y, X): for classes, the entropy divided by its largest value, log2 C; otherwise the mean over channels.
    """
    p = np.clip(probabilities, 1e-7, 1 - 1e-7).astype(np.float32)
    if classes:
        bits = -(p * np.log2(p)).sum(0)
        return np.asarray(bits / np.log2(len(p)), np.float32)
    return np.asarray(-(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean(0), np.float32)


def disagreement(predictions: Sequence[Floats]) -> Floats:
    """The variance of several predictions of the same voxels, averaged over channels: (Z, Y, X).

    Args:
        predictions: (C, Z, Y, X) float32 each, for example from several checkpoints or seeds.
    """
    total = np.zeros(predictions[0].shape, np.float64)
    squares = np.zeros_like(total)
    for prediction in predictions:
        total += prediction
        squares += np.square(prediction, dtype=np.float64)
    count = len(predictions)
    variance = squares / count - np.square(total / count)
    return np.asarray(np.maximum(variance, 0).mean(0), np.float32)


def split_or_joined(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> Floats:
    """Disagreement of two segmentations about pairs of neighbouring voxels.

    Args:
        one: (Z, Y, X) labels; 0 is background.
        other: The same volume, segmented at another threshold.

    Returns:
        (Z, Y, X) float32: the share of the three edges 0,0,1, 0,1,0 and 1,0,0 that only one segmentation cuts.
    """
    found = np.zeros(one.shape, np.float32)
    for axis in range(3):
        here = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        before = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        joined = [(labels[here] == labels[before]) & (labels[here] > 0) for labels in (one, other)]
        found[here] += (joined[0] != joined[1]) / np.float32(3)
    return found


def candidates(size: Vec3, box: Vec3) -> list[Box]:
    """Boxes of one size that tile a volume without overlap; the rest at the end of an axis is left out."""
    z, y, x = (range(0, n - b + 1, b) for n, b in zip(size, box, strict=True))
    return [Box.of_size((a, b, c), box) for a in z for b in y for c in x]


def choose(
    scores: Sequence[float],
    boxes: Sequence[Box],
    count: int,
    *,
    taken: Sequence[Box] = (),
    distance: float = 0,
    features: NDArray[np.floating] | None = None,
    voxel_size: Sequence[float] = (1, 1, 1),
) -> list[int]:
    """Choose boxes that have high scores, lie apart and differ from each other.

    Without features, boxes are taken in order of score. With features, a greedy core-set is taken from the `3 * count`
    best boxes: it starts with the best score and then always adds the box whose features are farthest from those
    chosen.

    Args:
        scores: One per box.
        boxes: The candidates.
        count: How many to choose; fewer come back if there are no more.
        taken: Boxes that were annotated before.
        distance: Smallest distance between centres, in the unit of `voxel_size`.
        features: (N, F), a row for each box.
        voxel_size: (z, y, x).

    Returns:
        Indices of `boxes`, the first choice first.
    """
    unit = np.asarray(voxel_size, float)
    centres = np.array([_centre(box) for box in boxes]).reshape(len(boxes), 3) * unit
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    blocked = [box for box in taken]
    places = [np.asarray(_centre(box)) * unit for box in taken]
    pool = [int(i) for i in order if not any(boxes[i].intersect(other) for other in blocked)]
    if features is not None:
        pool = [i for i in pool if _apart(centres[i], places, distance)][: 3 * count]
    chosen: list[int] = []
    while pool and len(chosen) < count:
        best = pool[0] if features is None or not chosen else _farthest(pool, chosen, features)
        chosen.append(best)
        places.append(centres[best])
        pool = [i for i in pool if i != best and _apart(centres[i], places, distance)]
    return chosen


def _centre(box: Box) -> tuple[float, ...]:
    return tuple((b + e) / 2 for b, e in zip(box.begin, box.end, strict=True))


def _apart(centre: NDArray[np.floating], places: Sequence[NDArray[np.floating]], distance: float) -> bool:
    return all(float(np.linalg.norm(centre - place)) >= distance for place in places)


def _farthest(pool: Sequence[int], chosen: Sequence[int], features: NDArray[np.floating]) -> int:
    gaps = np.linalg.norm(features[list(pool), None] - features[None, list(chosen)], axis=2).min(1)
    return pool[int(gaps.argmax())]


def standardised(features: Mapping[int, Sequence[float]] | NDArray[np.floating]) -> NDArray[np.floating]:
    """Features scaled to mean 0 and standard deviation 1; constant features become 0."""
    rows = np.asarray(list(features.values()) if isinstance(features, Mapping) else features, float)
    spread = rows.std(0)
    return np.asarray((rows - rows.mean(0)) / np.where(spread > 0, spread, 1))
