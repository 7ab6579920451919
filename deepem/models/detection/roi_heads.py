"""The second stage: the class, exact box and mask of each proposal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.detection.boxes import batched_nms, clip_boxes_to_volume, remove_small_boxes
from deepem.models.detection.coder import BoxCoder
from deepem.models.detection.heads import FastRCNNPredictor, MaskRCNNHeads, MaskRCNNPredictor, TwoMLPHead
from deepem.models.detection.limits import in_parts, limit
from deepem.models.detection.matcher import Matcher
from deepem.models.detection.roi_align import MultiScaleRoIAlign, align_masks
from deepem.models.detection.rpn import BETA, Losses, unless_unknown
from deepem.models.detection.sampler import BalancedPositiveNegativeSampler
from deepem.models.detection.transform import Target

__all__ = ["FastRCNNPredictor", "MaskRCNNHeads", "MaskRCNNPredictor", "RoIHeads", "TwoMLPHead"]

BOXES_AT_A_TIME = 1000
MASKS_AT_A_TIME = 16
"""In prediction, the heads see this many boxes at a time: 350 MB of features with the default sizes."""


def fastrcnn_loss(
    class_logits: Tensor, box_regression: Tensor, labels: Sequence[Tensor], regression_targets: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Losses of classes and boxes: means over the proposals of each image, summed over the images.

    Args:
        class_logits: (K, classes) of the proposals of all images.
        box_regression: (K, classes * 6).
        labels: The true class of each proposal, 0 for background; one tensor per image.
        regression_targets: (proposals, 6) true offsets; one tensor per image.

    Returns:
        The cross entropy, and the smooth L1 loss of the offsets of objects, divided by the number of all proposals too.
    """
    label, target = torch.cat(list(labels)), torch.cat(list(regression_targets))
    share = torch.cat([box_regression.new_full((len(one),), 1 / max(len(one), 1), dtype=torch.float) for one in labels])
    class_logits, box_regression = class_logits.float(), box_regression.float()
    classified = (share * F.cross_entropy(class_logits, label, reduction="none")).sum()
    at = (label > 0).nonzero()[:, 0]
    offsets = box_regression.unflatten(1, (-1, 6))[at, label[at]]
    moved = F.smooth_l1_loss(offsets, target[at], beta=BETA, reduction="none").sum(1)
    return classified, (share[at] * moved).sum() + box_regression.sum() * 0


def maskrcnn_loss(
    mask_logits: Tensor,
    proposals: Sequence[Tensor],
    targets: Sequence[Target],
    matched_idxs: Sequence[Tensor],
    aligned: bool = True,
) -> Tensor:
    """Binary cross entropy of the masks of the true classes: mean over each image's proposals, summed over images.

    Args:
        mask_logits: (K, classes, m, m, m) of the proposals of all images.
        proposals: (proposals, 6) of objects; one tensor per image.
        targets: One per image.
        matched_idxs: Number of the object matched to each proposal; one tensor per image.
        aligned: As in `roi_align`, for sampling the true masks.
    """
    loss = mask_logits.float().sum() * 0
    size = tuple(mask_logits.shape[2:])
    of_image = mask_logits.split([len(one) for one in proposals])
    for logits, boxes, target, matched in zip(of_image, proposals, targets, matched_idxs, strict=True):
        if not len(boxes):
            continue
        volume, channels, ids = mask_source(target)
        with torch.no_grad():
            wanted = align_masks(volume, boxes, channels[matched], ids[matched], size, aligned=aligned)
        own = logits[torch.arange(len(boxes), device=logits.device), target["labels"][matched]].float()
        loss = loss + F.binary_cross_entropy_with_logits(own, wanted)
    return loss


def mask_source(target: Target) -> tuple[Tensor, Tensor, Tensor]:
    """A volume (C, Z, Y, X), and the channel and id of each object in it."""
    if target.get("masks") is not None:
        masks = target["masks"]
        numbers = torch.arange(len(masks), device=masks.device)
        return masks != 0, numbers, torch.ones_like(numbers)
    return target["volume"], target["channels"], target["ids"]


class RoIHeads(nn.Module):
    """Classes, boxes and masks of proposals, and their losses.

    Args:
        box_roi_pool: Features of boxes for the box head.
        box_head: (K, C, z, y, x) -> (K, features).
        box_predictor: Features -> class logits and offsets for each class.
        fg_iou_thresh: Proposals with at least this IoU with an object are trained as that object.
        bg_iou_thresh: Proposals with less than this IoU with every object are trained as background.
        batch_size_per_image: Number of proposals to train on per image.
        positive_fraction: Largest share of objects among them.
        bbox_reg_weights: Weights of the offsets, as in `BoxCoder`; by default (10, 10, 10, 5, 5, 5).
        score_thresh: Drop objects with a lower score.
        nms_thresh: IoU above which an object suppresses those of its class with a lower score.
        detections_per_img: Number of best objects to keep per image.
        mask_roi_pool: Features of boxes for the mask head; without it there are no masks.
        mask_head: (K, C, z, y, x) -> the same size.
        mask_predictor: Features -> mask logits for each class.
        generator: Draws the training proposals.
        limit_voxels: `detections_per_img` is for images of up to this many voxels; see `limits.limit`.
    """

    def __init__(
        self,
        box_roi_pool: MultiScaleRoIAlign,
        box_head: nn.Module,
        box_predictor: nn.Module,
        fg_iou_thresh: float = 0.5,
        bg_iou_thresh: float = 0.5,
        batch_size_per_image: int = 512,
        positive_fraction: float = 0.25,
        bbox_reg_weights: Sequence[float] | None = None,
        score_thresh: float = 0.05,
        nms_thresh: float = 0.5,
        detections_per_img: int = 100,
        mask_roi_pool: MultiScaleRoIAlign | None = None,
        mask_head: nn.Module | None = None,
        mask_predictor: nn.Module | None = None,
        generator: torch.Generator | None = None,
        limit_voxels: int | None = None,
    ) -> None:
        super().__init__()
        self.box_coder = BoxCoder(bbox_reg_weights or (10.0, 10.0, 10.0, 5.0, 5.0, 5.0))
        self.proposal_matcher = Matcher(fg_iou_thresh, bg_iou_thresh)
        self.fg_bg_sampler = BalancedPositiveNegativeSampler(batch_size_per_image, positive_fraction, generator)
        self.box_roi_pool, self.box_head, self.box_predictor = box_roi_pool, box_head, box_predictor
        self.score_thresh, self.nms_thresh, self.detections_per_img = score_thresh, nms_thresh, detections_per_img
        self.mask_roi_pool, self.mask_head, self.mask_predictor = mask_roi_pool, mask_head, mask_predictor
        self.limit_voxels = limit_voxels

    def losses(
        self,
        features: Mapping[str, Tensor],
        proposals: Sequence[Tensor],
        image_shapes: Sequence[Sequence[int]],
        targets: Sequence[Target],
    ) -> Losses:
        """Losses of classes, boxes and, if there is a mask head, masks, over the proposals drawn for each image."""
        boxes, matched, labels, offsets = self.drawn(proposals, targets)
        pooled = self.box_roi_pool(features, boxes, image_shapes)
        logits, regression = self.box_predictor(self.box_head(pooled))
        classified, moved = fastrcnn_loss(logits, regression, labels, offsets)
        count = classified.new_tensor(len(targets))
        found = {"classifier": (classified, count), "box": (moved, count)}
        if self.mask_roi_pool is not None:
            at = [(label > 0).nonzero()[:, 0] for label in labels]
            objects, match = ([v[i] for v, i in zip(a, at, strict=True)] for a in (boxes, matched))
            logits = self.mask_logits(features, objects, image_shapes)
            loss = maskrcnn_loss(logits, objects, targets, match)
            found["mask"] = (loss, count.new_tensor(sum(len(one) > 0 for one in objects)))
        return found

    @torch.no_grad()
    def drawn(
        self, proposals: Sequence[Tensor], targets: Sequence[Target]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Draw the training proposals of each image: boxes, numbers of their objects, classes and offsets to them.

        The true boxes are added to the proposals.
        """
        found: tuple[list[Tensor], ...] = ([], [], [], [])
        for proposed, target in zip(proposals, targets, strict=True):
            true = target["boxes"].to(proposed.dtype)
            boxes = torch.cat([proposed, true])
            matched = self.proposal_matcher.match(true, boxes)
            number = matched.clamp(min=0)
            label = matched.clamp(max=0) if not len(true) else target["labels"][number].where(matched >= 0, matched)
            label = torch.where(label < 0, label + 1, label)  # below the threshold: background; between: neither
            label = unless_unknown(label, boxes, target.get("valid"))
            positive, negative = self.fg_bg_sampler([label])
            at = (positive[0] | negative[0]).nonzero()[:, 0]
            wanted = torch.zeros_like(boxes[at])
            if len(true):
                wanted = self.box_coder.encode_single(true[number[at]], boxes[at])
            for into, values in zip(found, (boxes[at], number[at], label[at], wanted), strict=True):
                into.append(values)
        return found[0], found[1], found[2], found[3]

    def forward(
        self,
        features: Mapping[str, Tensor],
        proposals: Sequence[Tensor],
        image_shapes: Sequence[Sequence[int]],
    ) -> list[dict[str, Tensor]]:
        """Return for each image, best first, ``boxes``, ``labels``, ``scores`` and, with masks, ``mask_probs``."""
        heads = []
        for part in in_parts(proposals, BOXES_AT_A_TIME):
            heads.append(self.box_predictor(self.box_head(self.box_roi_pool(features, part, image_shapes))))
        logits, offsets = (torch.cat(parts).float() for parts in zip(*heads, strict=True))
        found = self.detections(logits, offsets, proposals, image_shapes)
        if self.mask_roi_pool is not None:
            masks = []
            boxes, labels = ([one[key] for one in found] for key in ("boxes", "labels"))
            parts = (in_parts(each, MASKS_AT_A_TIME) for each in (boxes, labels))
            for part, label in zip(*parts, strict=True):
                of = torch.cat(label)
                made = self.mask_logits(features, part, image_shapes)
                masks.append(made[torch.arange(len(of), device=of.device), of].float().sigmoid())
            for one, probability in zip(found, torch.cat(masks).split([len(b) for b in boxes]), strict=True):
                one["mask_probs"] = probability
        return found

    def mask_logits(
        self, features: Mapping[str, Tensor], boxes: Sequence[Tensor], image_shapes: Sequence[Sequence[int]]
    ) -> Tensor:
        """Mask logits (K, classes, m, m, m) for the boxes of all images."""
        assert self.mask_roi_pool is not None
        assert self.mask_head is not None
        assert self.mask_predictor is not None
        logits: Tensor = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, image_shapes)))
        return logits

    def detections(
        self,
        class_logits: Tensor,
        box_regression: Tensor,
        proposals: Sequence[Tensor],
        image_shapes: Sequence[Sequence[int]],
    ) -> list[dict[str, Any]]:
        """Select the objects of each image: the best boxes of all classes except background, without duplicates."""
        classes = class_logits.shape[1]
        counts = [len(boxes) for boxes in proposals]
        decoded = self.box_coder.decode(box_regression, proposals).split(counts)
        found = []
        for scores, boxes, size in zip(class_logits.softmax(1).split(counts), decoded, image_shapes, strict=True):
            boxes = clip_boxes_to_volume(boxes, size)[:, 1:].reshape(-1, 6)
            score = scores[:, 1:].flatten()
            label = torch.arange(1, classes, device=score.device).repeat(len(scores))
            keep = (score > self.score_thresh).nonzero()[:, 0]
            keep = keep[remove_small_boxes(boxes[keep], 1e-2)]
            most = limit(self.detections_per_img, size, self.limit_voxels)
            keep = keep[batched_nms(boxes[keep], score[keep], label[keep], self.nms_thresh)][:most]
            found.append({"boxes": boxes[keep], "labels": label[keep], "scores": score[keep]})
        return found
