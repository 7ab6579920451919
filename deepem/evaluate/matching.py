"""One-to-one matching of predicted and true objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deepem.evaluate.overlaps import Array

COCO_RECALLS = [i / 100 for i in range(101)]


def matched(predicted: Array, true: Array, quality: Array) -> Array:
    """Match as many pairs as possible, then maximise the total quality. Return indices of the chosen candidates.

    Args:
        predicted: (N,) the predicted object of each candidate pair.
        true: (N,) the true one.
        quality: (N,) in [0, 1].
    """
    a, b = _dense(predicted), _dense(true)
    rivals = np.bincount(a)[a] * np.bincount(b)[b]
    alone = np.flatnonzero(rivals == 1)
    contested = np.flatnonzero(rivals > 1)
    chosen = [alone]
    for group in _groups(predicted[contested], true[contested]):
        chosen.append(contested[group][_assigned(*(x[contested[group]] for x in (predicted, true, quality)))])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def ranked(predicted: Array, true: Array, quality: Array, order: Sequence[int]) -> Array:
    """Match as COCO does: in the given order, each object takes the best free true one. Return candidate indices.

    Args:
        predicted: (N,) the predicted object of each candidate pair.
        true: (N,) the true one.
        quality: (N,) overlap.
        order: Predicted objects, highest score first.
    """
    by_quality = np.lexsort((true, -quality, predicted))
    options: dict[int, list[int]] = {}
    for i in by_quality.tolist():
        options.setdefault(int(predicted[i]), []).append(i)
    taken: set[int] = set()
    chosen = []
    for name in order:
        for i in options.get(int(name), []):
            if int(true[i]) not in taken:
                taken.add(int(true[i]))
                chosen.append(i)
                break
    return np.array(chosen, np.int64)


def precision_recall(scores: Array, hit: Array, there: int) -> tuple[list[float], list[float]]:
    """Return (recall, precision) at each distinct score, highest first; equal scores form one point.

    Args:
        scores: (N,) of the predicted objects.
        hit: (N,) bool, whether each has a match.
        there: Number of true objects in all.
    """
    order = np.argsort(-scores, kind="stable")
    scores, hit = scores[order], hit[order]
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if scores.size else np.zeros(0, np.int64)
    hits = np.cumsum(hit)[last]
    return [int(h) / there for h in hits], [int(h) / int(n + 1) for h, n in zip(hits, last, strict=True)]


def coco_precision(recall: Sequence[float], precision: Sequence[float]) -> float:
    """Area under the precision-recall curve, as COCO computes it.

    This is the mean over recalls 0, .01, ... 1 of the highest precision at that recall or above.
    """
    highest, best = 0.0, list(precision)
    for i in reversed(range(len(best))):
        highest = best[i] = max(highest, best[i])
    at = np.searchsorted(np.asarray(recall), COCO_RECALLS, side="left")
    return float(sum(best[i] if i < len(best) else 0.0 for i in at.tolist()) / len(COCO_RECALLS))


def _dense(ids: Array) -> Array:
    return np.unique(ids, return_inverse=True)[1].reshape(-1)


def _groups(predicted: Array, true: Array) -> list[Array]:
    """Yield groups of candidates that compete with each other."""
    if not len(true):
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b = _dense(predicted), _dense(true)
    n = int(a.max()) + 1
    graph = coo_array((np.ones(len(a)), (a, b + n)), shape=(n + int(b.max()) + 1,) * 2)
    group = connected_components(graph, directed=False)[1][a]
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _assigned(predicted: Array, true: Array, quality: Array) -> Array:
    """Find the best one-to-one assignment within a group."""
    from scipy.optimize import linear_sum_assignment

    a, b = _dense(predicted), _dense(true)
    shape = int(a.max()) + 1, int(b.max()) + 1
    index = np.full(shape, -1)
    index[a, b] = np.arange(len(a))
    worth = np.zeros(shape)
    worth[a, b] = 1 + quality / (2 * min(shape))  # one more pair outweighs any quality
    found: Array = index[linear_sum_assignment(worth, maximize=True)]
    return found[found >= 0]
