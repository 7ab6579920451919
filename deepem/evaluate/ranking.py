"""Area under the ROC curve and average precision, block by block.

A ranking is a table of distinct scores with the hits (events) and false alarms at each. Equal scores form one point of
the curve. Nothing is interpolated between points, so a constant score has the average precision of chance.
"""

from __future__ import annotations

import math

import numpy as np

from deepem.evaluate.overlaps import CHUNK, Array
from deepem.utils.errors import InputError

LIMIT = 1 << 20
"""Largest number of distinct scores in a ranking."""

_SIGN = np.uint64(1 << 63)


class Ranking:
    """Hits and false alarms at each distinct score.

    The ranking is exact up to `limit` distinct scores. Beyond that, scores are rounded down to as many leading bits as
    the limit allows; with the default limit, probabilities keep about 16 significant bits. The number of bits depends
    on the set of all scores, not on the order or the blocks in which they were added.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._shift = np.uint64(0)
        self._keys, self._hits, self._alarms = _nothing()
        self._parts: list[tuple[Array, Array, Array]] = []
        self._pending = 0

    def add(self, score: Array, event: Array) -> None:
        """Add some voxels to the ranking.

        Args:
            score: Numbers of any real type, without NaN; a higher score means a more likely event.
            event: bool, of the same shape: the voxels that should have high scores.

        Raises:
            InputError: a score is NaN.
        """
        score, event = score.reshape(-1), event.reshape(-1)
        for i in range(0, score.size, 8 * CHUNK):
            keys, is_event = _as_keys(score[i : i + 8 * CHUNK]) >> self._shift, event[i : i + 8 * CHUNK]
            one = np.unique(keys[is_event], return_counts=True)
            other = np.unique(keys[~is_event], return_counts=True)
            self._parts += [(*one, np.zeros_like(one[1])), (other[0], np.zeros_like(other[1]), other[1])]
            self._pending += len(one[0]) + len(other[0])
            if self._pending > max(self.limit, len(self._keys)):
                self._fold()

    def merge(self, other: Ranking) -> None:
        """Add another ranking, which must have the same limit."""
        if other.limit != self.limit:
            raise ValueError(f"rankings of {self.limit} and {other.limit} scores")
        other._fold()
        self._fold()
        self._coarsen(other._shift)
        self._parts.append((other._keys >> (self._shift - other._shift), other._hits, other._alarms))
        self._fold()

    def falling(self) -> tuple[Array, Array, Array]:
        """Distinct scores (float64), highest first, and the hits and false alarms at or above each."""
        self._fold()
        scores = _as_scores(self._keys[::-1] << self._shift)
        return scores, np.cumsum(self._hits[::-1]), np.cumsum(self._alarms[::-1])

    @property
    def share(self) -> float:
        """The share of events among all voxels: the average precision of chance."""
        self._fold()
        hits, alarms = int(self._hits.sum()), int(self._alarms.sum())
        return hits / (hits + alarms) if hits + alarms else math.nan

    def auc(self) -> float:
        """Area under the ROC curve: the probability that an event outranks another voxel, where a tie counts half."""
        _, hits, alarms = self.falling()
        if not (hits.size and hits[-1] and alarms[-1]):
            return math.nan
        gained, before = np.diff(alarms, prepend=0).astype(float), hits - np.diff(hits, prepend=0) / 2
        return math.fsum(gained / alarms[-1] * (before / hits[-1]))

    def average_precision(self) -> float:
        """Sum over distinct scores of (recall_n - recall_{n-1}) * precision_n."""
        _, hits, alarms = self.falling()
        if not (hits.size and hits[-1]):
            return math.nan
        return math.fsum(np.diff(hits, prepend=0) * (hits / (hits + alarms))) / float(hits[-1])

    def _fold(self) -> None:
        if not self._parts:
            return
        parts = zip((self._keys, self._hits, self._alarms), *self._parts, strict=True)
        keys, hits, alarms = (np.concatenate(column) for column in parts)
        order = np.argsort(keys)
        self._keys, self._hits, self._alarms = _joined(keys[order], hits[order], alarms[order])
        self._parts, self._pending = [], 0
        if len(self._keys) > self.limit:
            differing = self._keys[1:] ^ self._keys[:-1]
            # Neighbours stay distinct while their highest differing bit is kept; the limit allows limit - 1 of these.
            least = np.partition(differing, len(differing) - self.limit)[len(differing) - self.limit]
            self._coarsen(self._shift + np.uint64(int(least).bit_length()))

    def _coarsen(self, shift: np.uint64) -> None:
        if shift > self._shift:
            self._keys, self._hits, self._alarms = _joined(
                self._keys >> (shift - self._shift), self._hits, self._alarms
            )
            self._shift = shift


def _nothing() -> tuple[Array, Array, Array]:
    return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)


def _joined(keys: Array, hits: Array, alarms: Array) -> tuple[Array, Array, Array]:
    """Distinct keys, sorted."""
    if not keys.size:
        return _nothing()
    first = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return keys[first], np.add.reduceat(hits, first), np.add.reduceat(alarms, first)


def _as_keys(score: Array) -> Array:
    """Unsigned integers that sort like the scores."""
    score = score.astype(np.float64) + 0.0  # -0 becomes +0
    if np.isnan(score).any():
        raise InputError("probability", "NaN", "numbers")
    bits = score.view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _as_scores(keys: Array) -> Array:
    return np.where(keys & _SIGN, keys ^ _SIGN, ~keys).view(np.float64)
