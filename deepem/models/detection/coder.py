"""Encode boxes as offsets from other boxes, which is what a network predicts."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor

CLIP = log(1000.0 / 16)
"""Upper limit of the logarithm of a size ratio when decoding."""

TINY = 1e-6
"""Shorter sides are set to this length, so that their logarithm is finite."""


class BoxCoder:
    """Offsets of boxes from proposals: ``w * (centre - centre of proposal) / side`` and ``w * log(side / side)``.

    The offsets are (dz, dy, dx, dd, dh, dw). Girshick et al. 2014, arXiv:1311.2524, appendix C.

    Args:
        weights: Factors of the six offsets.
        bbox_xform_clip: Upper limit of the logarithms when decoding.
    """

    def __init__(self, weights: Sequence[float], bbox_xform_clip: float = CLIP) -> None:
        z, y, x, depth, height, width = weights
        self.weights = (z, y, x, depth, height, width)
        self.bbox_xform_clip = bbox_xform_clip

    def encode(self, reference_boxes: Sequence[Tensor], proposals: Sequence[Tensor]) -> list[Tensor]:
        """Apply `encode_single` to each image."""
        return [self.encode_single(*pair) for pair in zip(reference_boxes, proposals, strict=True)]

    def encode_single(self, reference_boxes: Tensor, proposals: Tensor) -> Tensor:
        """Encode boxes (N, 6) as offsets (N, 6) from proposals (N, 6)."""
        kind = proposals.dtype if proposals.dtype == torch.float64 else torch.float32
        centre, side = _centre_and_side(reference_boxes.to(kind))
        from_centre, from_side = _centre_and_side(proposals.to(kind))
        moved = (centre - from_centre) / from_side.clamp(min=TINY)
        grown = torch.log(side.clamp(min=TINY) / from_side.clamp(min=TINY))
        return torch.cat([moved, grown], 1) * proposals.new_tensor(self.weights, dtype=kind)

    def decode(self, rel_codes: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """Decode offsets (N, K * 6), K per proposal, to boxes (N, K, 6), for the proposals of all images together."""
        decoded = self.decode_single(rel_codes, torch.cat(list(boxes)))
        return decoded.reshape(len(decoded), -1, 6)

    def decode_single(self, rel_codes: Tensor, boxes: Tensor) -> Tensor:
        """Decode offsets (N, K * 6) from proposals (N, 6) to boxes (N, K * 6)."""
        kind = boxes.dtype if boxes.dtype == torch.float64 else torch.float32
        codes = rel_codes.to(kind).reshape(len(boxes), -1, 6) / boxes.new_tensor(self.weights, dtype=kind)
        centre, side = (part[:, None] for part in _centre_and_side(boxes.to(kind)))
        centre = centre + codes[..., :3] * side
        half = side * codes[..., 3:].clamp(max=self.bbox_xform_clip).exp() / 2
        return torch.cat([centre - half, centre + half], -1).reshape(len(boxes), -1)


def _centre_and_side(boxes: Tensor) -> tuple[Tensor, Tensor]:
    side = boxes[:, 3:] - boxes[:, :3]
    return boxes[:, :3] + side / 2, side
