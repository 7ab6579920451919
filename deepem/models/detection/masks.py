"""Turn masks predicted at a fixed size within boxes into masks of a volume or into labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepem.utils.geometry import Box, Vec3, vec3


def mask_in_box(probability: Tensor, box: Tensor, size: Sequence[int]) -> tuple[Box, Tensor] | None:
    """Interpolate a predicted mask to the voxels of its box.

    Args:
        probability: (m, m, m), the bins of a box.
        box: (6,), in voxels of a volume.
        size: (z, y, x) of the volume.

    Returns:
        The voxels of the volume whose centres lie in the box, and their probabilities, interpolated trilinearly between
        the centres of bins; None if there are none.
    """
    corners = box.tolist()
    begin, end = [], []
    for low, high, length in zip(corners[:3], corners[3:], size, strict=True):
        begin.append(max(first_voxel(low), 0))
        end.append(min(first_voxel(high), length))
    if not all(b < e for b, e in zip(begin, end, strict=True)):
        return None
    values = probability.float()
    for axis, bins in enumerate(probability.shape):
        low, high = corners[axis], corners[axis + 3]
        centres = torch.arange(begin[axis], end[axis], device=values.device) + 0.5
        at = ((centres - low) / (high - low) * bins - 0.5).clamp(0, bins - 1)
        first = at.floor().long().clamp(max=max(bins - 2, 0))
        part = (at - first).view([-1 if a == axis else 1 for a in range(3)])
        values = (
            values.index_select(axis, first) * (1 - part)
            + values.index_select(axis, (first + 1).clamp(max=bins - 1)) * part
        )
    return Box(vec3(begin), vec3(end)), values


def first_voxel(value: float) -> int:
    """Index of the first voxel whose centre lies at or after a coordinate."""
    return int(-(-(value - 0.5) // 1))


def paste_masks_in_volume(probabilities: Tensor, boxes: Tensor, size: Vec3, threshold: float = 0.5) -> Tensor:
    """Paste predicted masks (N, m, m, m) of boxes (N, 6) into a volume of size (z, y, x): (N, Z, Y, X) bool."""
    out = torch.zeros(len(boxes), *size, dtype=torch.bool, device=probabilities.device)
    for into, probability, box in zip(out, probabilities, boxes, strict=True):
        if (found := mask_in_box(probability, box, size)) is not None:
            into[found[0].slices()] = found[1] > threshold
    return out


def label_volume(probabilities: Tensor, boxes: Tensor, scores: Tensor, size: Vec3, threshold: float = 0.5) -> Tensor:
    """Paint objects into one label volume; where they overlap, the one with the higher score wins.

    Args:
        probabilities: (N, m, m, m) predicted masks.
        boxes: (N, 6).
        scores: (N,).
        size: (z, y, x) of the volume.
        threshold: Probability above which a voxel belongs to an object.

    Returns:
        (Z, Y, X) int32: n + 1 for object n, 0 for background.
    """
    out = torch.zeros(size, dtype=torch.int32, device=probabilities.device)
    for n in scores.argsort(stable=True, descending=True).flip(0).tolist():
        if (found := mask_in_box(probabilities[n], boxes[n], size)) is not None:
            out[found[0].slices()].masked_fill_(found[1] > threshold, n + 1)
    return out
