"""Operations on boxes (z1, y1, x1, z2, y2, x2) in voxels, half-open: volume, overlap, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepem.utils.errors import InputError

BLOCKS = {"cpu": (128, 248)}
"""By device, how many boxes `nms` compares with how many at a time: on a CPU fewer pairs than torch shares between
threads, whose waiting for each other would take longer than the work, above all on a busy machine."""

LARGE = (1024, 8192)
"""Tile sizes of `nms` on other devices."""


def box_volume(boxes: Tensor) -> Tensor:
    """(N, 6) -> (N,) volumes in voxels; negative if a box is inverted along one axis."""
    boxes = _real(boxes)
    sides = boxes[:, 3:] - boxes[:, :3]
    return sides[:, 0] * sides[:, 1] * sides[:, 2]


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair, (N, 6) and (M, 6) -> (N, M); 0 for two boxes without volume."""
    inter, union = _overlap(_real(boxes1), _real(boxes2))
    return inter / union.where(union > 0, 1)


def generalized_box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Generalised IoU of every pair, IoU - (C - union) / C with C the volume of their enclosing box, (N, M) in (-1, 1].

    Source: Rezatofighi et al. 2019, arXiv:1902.09630.
    """
    first, second = _real(boxes1), _real(boxes2)
    inter, union = _overlap(first, second)
    around = None
    for axis in range(3):
        end = torch.maximum(first[:, None, axis + 3], second[None, :, axis + 3])
        side = end - torch.minimum(first[:, None, axis], second[None, :, axis])
        around = side if around is None else around * side
    assert around is not None
    return inter / union.where(union > 0, 1) - (around - union) / around.where(around > 0, 1)


def clip_boxes_to_volume(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Clip boxes (..., 6) to a volume of size (z, y, x)."""
    depth, height, width = size
    most = boxes.new_tensor([depth, height, width, depth, height, width])
    return torch.minimum(boxes.clamp(min=0), most)


def remove_small_boxes(boxes: Tensor, min_size: float) -> Tensor:
    """Indices of the boxes (N, 6) whose sides are all at least `min_size`."""
    return (boxes[:, 3:] - boxes[:, :3] >= min_size).all(1).nonzero()[:, 0]


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Bounding box of each mask, (N, Z, Y, X) -> (N, 6) float32; an empty mask has an empty box at the origin.

    A box ends one voxel after the last voxel of its mask, so that it encloses whole voxels.
    """
    if masks.ndim != 4:
        raise InputError("masks", f"shape {tuple(masks.shape)}", "(N, Z, Y, X)")
    boxes = torch.zeros(len(masks), 6, device=masks.device)
    for axis, others in enumerate(((2, 3), (1, 3), (1, 2))):
        present = (masks != 0).any(others[1]).any(others[0])
        boxes[:, axis], boxes[:, axis + 3] = extent(present)
    return boxes


def extent(present: Tensor) -> tuple[Tensor, Tensor]:
    """First and last true entry of each row of (N, L), half-open; 0 and 0 for a row without any."""
    steps = torch.arange(present.shape[1], device=present.device)
    length = present.shape[1]
    begin = steps.where(present, length).amin(1) if length else steps.new_zeros(len(present))
    end = (steps + 1).where(present, 0).amax(1) if length else steps.new_zeros(len(present))
    return torch.minimum(begin, end), end


@torch.no_grad()
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression: drop a box if its IoU with a kept box of higher score is above the threshold.

    Boxes are sorted by score and processed in blocks. The boxes kept in a block suppress all later boxes, tile by tile,
    so that the matrix of all pairs is never held in memory::

               later boxes ->
        block  [x][ tile ][ tile ][ tile ]
                  [x     ][ tile ][ tile ]      x: within a block, solved exactly
                          [x     ][ tile ]

    Args:
        boxes: (N, 6).
        scores: (N,); in a tie the earlier box comes first.
        iou_threshold: In [0, 1].

    Returns:
        Indices of the boxes that stay, (K,) int64, by falling score.
    """
    order = scores.argsort(descending=True, stable=True)
    corners = _real(boxes)[order].t().contiguous()
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    block, tile = BLOCKS.get(boxes.device.type, LARGE)
    kept = []
    for begin in range(0, len(order), block):
        at = begin + alive[begin : begin + block].nonzero()[:, 0]
        at = at[_survivors(_iou_of_corners(corners[:, at], corners[:, at]) > iou_threshold)]
        kept.append(at)
        for later in range(begin + block, len(order), tile):
            here = slice(later, later + tile)
            alive[here] &= ~(_iou_of_corners(corners[:, at], corners[:, here]) > iou_threshold).any(0)
    return order[torch.cat(kept)] if kept else order


@torch.no_grad()
def batched_nms(boxes: Tensor, scores: Tensor, classes: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression within each class; boxes of different classes do not suppress each other.

    Args:
        boxes: (N, 6).
        scores: (N,).
        classes: (N,), whole numbers.
        iou_threshold: In [0, 1].

    Returns:
        Indices of the boxes that stay, (K,) int64, by falling score over all classes.
    """
    alive = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for one in classes.unique():
        at = (classes == one).nonzero()[:, 0]
        alive[at[nms(boxes[at], scores[at], iou_threshold)]] = True
    kept = alive.nonzero()[:, 0]
    return kept[scores[kept].argsort(descending=True, stable=True)]


def _survivors(suppresses: Tensor) -> Tensor:
    """Mask of the boxes that stay: those that no earlier kept box suppresses.

    The rule is iterated to its fixed point, which takes as many rounds as the longest chain of suppressions has links.
    """
    earlier = suppresses.triu(1)
    keep = torch.ones(len(earlier), dtype=torch.bool, device=earlier.device)
    while True:
        now = ~(earlier & keep[:, None]).any(0)
        if torch.equal(now, keep):
            return keep
        keep = now


def _iou_of_corners(first: Tensor, second: Tensor) -> Tensor:
    """IoU of every pair of boxes given as (6, N) and (6, M), with few temporaries; NaN for two boxes without volume."""
    inter = None
    for axis in range(3):
        side = torch.minimum(first[axis + 3][:, None], second[axis + 3])
        side.sub_(torch.maximum(first[axis][:, None], second[axis])).clamp_(min=0)
        inter = side if inter is None else inter.mul_(side)
    assert inter is not None
    volumes = [(box[3] - box[0]) * (box[4] - box[1]) * (box[5] - box[2]) for box in (first, second)]
    union = (volumes[0][:, None] + volumes[1]).sub_(inter)
    return inter.div_(union)


def _overlap(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union of every pair, each (N, M)."""
    inter = None
    for axis in range(3):
        end = torch.minimum(first[:, None, axis + 3], second[None, :, axis + 3])
        side = (end - torch.maximum(first[:, None, axis], second[None, :, axis])).clamp(min=0)
        inter = side if inter is None else inter * side
    assert inter is not None
    return inter, box_volume(first)[:, None] + box_volume(second) - inter


def _real(boxes: Tensor) -> Tensor:
    """Convert boxes to a type in which their products do not overflow."""
    if boxes.ndim != 2 or boxes.shape[1] != 6:
        raise InputError("boxes", f"shape {tuple(boxes.shape)}", "(N, 6), as (z1, y1, x1, z2, y2, x2)")
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()
