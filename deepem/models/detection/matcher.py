"""Match proposed boxes to true objects."""

from __future__ import annotations

import torch
from torch import Tensor

from deepem.models.detection.boxes import box_iou
from deepem.utils.errors import InputError

PAIRS = 1 << 24
"""Number of overlaps that `Matcher.match` holds at a time."""


class Matcher:
    """Assign each prediction the number of the true object that it overlaps most, or the reason why it has none.

    Args:
        high_threshold: A prediction with at least this overlap is assigned the object that it overlaps most.
        low_threshold: A prediction with less overlap is background (-1); between the two thresholds it is ignored (-2).
        allow_low_quality_matches: Also assign the predictions that overlap an object as much as any prediction does,
            even below the thresholds: each gets the object that it overlaps most.
        touching: Restrict this to predictions that overlap the object at all. Without it, as in torchvision, an object
            that no prediction overlaps claims all of them.
    """

    BELOW_LOW_THRESHOLD = -1
    BETWEEN_THRESHOLDS = -2

    def __init__(
        self,
        high_threshold: float,
        low_threshold: float,
        allow_low_quality_matches: bool = False,
        *,
        touching: bool = False,
    ) -> None:
        if low_threshold > high_threshold:
            raise InputError("low_threshold", low_threshold, f"at most the high one, {high_threshold}")
        self.high_threshold, self.low_threshold = high_threshold, low_threshold
        self.allow_low_quality_matches, self.touching = allow_low_quality_matches, touching

    def __call__(self, match_quality_matrix: Tensor) -> Tensor:
        """(objects, predictions) overlaps -> (predictions,) int64: the number of an object, -1 or -2."""
        if not match_quality_matrix.numel():
            return self._nothing(match_quality_matrix.shape[1], match_quality_matrix.device)
        quality, best = match_quality_matrix.max(0)
        found = self._judged(quality, best)
        if self.allow_low_quality_matches:
            found = best.where(self._closest(match_quality_matrix, match_quality_matrix.amax(1)), found)
        return found

    def match(self, objects: Tensor, predictions: Tensor) -> Tensor:
        """Match boxes (M, 6) and (N, 6) by IoU, without the matrix of all pairs."""
        if not len(objects):
            return self._nothing(len(predictions), predictions.device)
        step = max(PAIRS // len(objects), 1)
        pieces = [predictions[begin : begin + step] for begin in range(0, len(predictions), step)]
        qualities, bests, highest = [], [], objects.new_zeros(len(objects))
        for piece in pieces:
            overlaps = box_iou(objects, piece)
            quality, best = overlaps.max(0)
            qualities.append(quality)
            bests.append(best)
            highest = torch.maximum(highest, overlaps.amax(1))
        if not pieces:
            return self._nothing(0, predictions.device)
        best = torch.cat(bests)
        found = self._judged(torch.cat(qualities), best)
        if self.allow_low_quality_matches:
            once = overlaps if len(pieces) == 1 else None
            closest = [self._closest(box_iou(objects, p) if once is None else once, highest) for p in pieces]
            found = best.where(torch.cat(closest), found)
        return found

    def _judged(self, quality: Tensor, best: Tensor) -> Tensor:
        found = best.where(quality >= self.high_threshold, self.BETWEEN_THRESHOLDS)
        return found.where(quality >= self.low_threshold, self.BELOW_LOW_THRESHOLD)

    def _closest(self, overlaps: Tensor, highest: Tensor) -> Tensor:
        """Mask of the predictions whose overlap with some object is the highest that this object has."""
        closest = overlaps == highest[:, None]
        return (closest & (highest > 0)[:, None] if self.touching else closest).any(0)

    def _nothing(self, predictions: int, device: torch.device) -> Tensor:
        return torch.full((predictions,), self.BELOW_LOW_THRESHOLD, dtype=torch.long, device=device)
