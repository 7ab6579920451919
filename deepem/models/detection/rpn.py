"""The first stage: propose boxes around possible objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.detection.anchors import AnchorGenerator
from deepem.models.detection.boxes import batched_nms, clip_boxes_to_volume, remove_small_boxes
from deepem.models.detection.coder import BoxCoder
from deepem.models.detection.layers import ConvNormActivation
from deepem.models.detection.limits import limit
from deepem.models.detection.matcher import Matcher
from deepem.models.detection.sampler import BalancedPositiveNegativeSampler
from deepem.models.detection.transform import ImageList, Target

Losses = dict[str, tuple[Tensor, Tensor]]
"""Name -> (sum over a batch of the mean loss of each image, number of images)."""

BETA = 1 / 9
"""Where the smooth L1 loss of boxes changes from quadratic to linear."""


class RPNHead(nn.Module):
    """Predict objectness and box offsets for every anchor, with convolutions shared by all feature maps.

    Args:
        in_channels: Channels of the feature maps.
        num_anchors: Anchors per cell.
        conv_depth: Number of 3^3 convolutions before the two 1^3 convolutions.
    """

    def __init__(self, in_channels: int, num_anchors: int, conv_depth: int = 1) -> None:
        super().__init__()
        self.conv = nn.Sequential(*(ConvNormActivation(in_channels, in_channels) for _ in range(conv_depth)))
        self.cls_logits = nn.Conv3d(in_channels, num_anchors, 1)
        self.bbox_pred = nn.Conv3d(in_channels, num_anchors * 6, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """For each map (N, C, z, y, x): logits (N, A, z, y, x) and offsets (N, A * 6, z, y, x)."""
        logits, offsets = [], []
        for features in x:
            hidden = self.conv(features)
            logits.append(self.cls_logits(hidden))
            offsets.append(self.bbox_pred(hidden))
        return logits, offsets


class RegionProposalNetwork(nn.Module):
    """Propose boxes that may hold an object, with losses of objectness and boxes; Ren et al., arXiv:1506.01497.

    Args:
        anchor_generator: Boxes to start from.
        head: Predicts logits and offsets for each map.
        fg_iou_thresh: Anchors with at least this IoU with an object are trained as objects.
        bg_iou_thresh: Anchors with less than this IoU with every object are trained as background.
        batch_size_per_image: Number of anchors to train on per image.
        positive_fraction: Largest share of objects among them.
        pre_nms_top_n: For ``"training"`` and ``"testing"``, number of proposals per map before non-maximum suppression.
        post_nms_top_n: For ``"training"`` and ``"testing"``, number of proposals per image after it.
        nms_thresh: IoU above which a proposal suppresses those with a lower score.
        score_thresh: Drop proposals with a lower score.
        generator: Draws the training anchors.
        limit_voxels: In testing, the two numbers are for images of up to this many voxels; see `limits.limit`.
    """

    def __init__(
        self,
        anchor_generator: AnchorGenerator,
        head: nn.Module,
        fg_iou_thresh: float = 0.7,
        bg_iou_thresh: float = 0.3,
        batch_size_per_image: int = 256,
        positive_fraction: float = 0.5,
        pre_nms_top_n: Mapping[str, int] | None = None,
        post_nms_top_n: Mapping[str, int] | None = None,
        nms_thresh: float = 0.7,
        score_thresh: float = 0.0,
        generator: torch.Generator | None = None,
        limit_voxels: int | None = None,
    ) -> None:
        super().__init__()
        self.anchor_generator, self.head = anchor_generator, head
        self.box_coder = BoxCoder((1.0, 1.0, 1.0, 1.0, 1.0, 1.0))
        self.proposal_matcher = Matcher(fg_iou_thresh, bg_iou_thresh, allow_low_quality_matches=True, touching=True)
        self.fg_bg_sampler = BalancedPositiveNegativeSampler(batch_size_per_image, positive_fraction, generator)
        self.pre_nms_top_n = dict(pre_nms_top_n or {"training": 2000, "testing": 1000})
        self.post_nms_top_n = dict(post_nms_top_n or {"training": 2000, "testing": 1000})
        self.nms_thresh, self.score_thresh = nms_thresh, score_thresh
        self.min_size, self.limit_voxels = 1e-3, limit_voxels

    def forward(
        self, images: ImageList, features: Mapping[str, Tensor], targets: Sequence[Target] | None = None
    ) -> tuple[list[Tensor], Losses]:
        """Return the proposals (K, 6) of each image, best first, and the losses if there are targets."""
        maps = list(features.values())
        logits, offsets = self.head(maps)
        anchors = self.anchor_generator(images, maps)
        sizes = [level[0].numel() for level in logits]
        objectness = torch.cat([level.permute(0, 2, 3, 4, 1).flatten(1) for level in logits], 1).float()
        flat = [level.unflatten(1, (-1, 6)).permute(0, 3, 4, 5, 1, 2).reshape(len(level), -1, 6) for level in offsets]
        deltas = torch.cat(flat, 1).float()
        proposals = self.proposals(objectness.detach(), deltas.detach(), anchors, images.image_sizes, sizes)
        return proposals, {} if targets is None else self.losses(objectness, deltas, anchors, targets)

    @torch.no_grad()
    def proposals(
        self,
        objectness: Tensor,
        deltas: Tensor,
        anchors: Sequence[Tensor],
        image_sizes: Sequence[Sequence[int]],
        sizes: Sequence[int],
    ) -> list[Tensor]:
        """Select the best boxes of each image: decode, clip to the image, drop small ones and duplicates.

        Args:
            objectness: (N, A) logits.
            deltas: (N, A, 6).
            anchors: (A, 6) for each image.
            image_sizes: (z, y, x) for each image.
            sizes: Number of anchors of each map.
        """
        found = []
        for logits, offsets, boxes, size in zip(objectness, deltas, anchors, image_sizes, strict=True):
            most, kept = self._limit(self.pre_nms_top_n, size), self._limit(self.post_nms_top_n, size)
            tops, levels, first = [], [], 0
            for level, part in enumerate(logits.split(list(sizes))):
                top = part.topk(min(most, len(part))).indices + first
                tops.append(top)
                levels.append(torch.full_like(top, level))
                first += len(part)
            top, of_level = torch.cat(tops), torch.cat(levels)
            scores = logits[top].sigmoid()
            decoded = clip_boxes_to_volume(self.box_coder.decode_single(offsets[top], boxes[top]), size)
            keep = remove_small_boxes(decoded, self.min_size)
            keep = keep[scores[keep] >= self.score_thresh]
            keep = keep[batched_nms(decoded[keep], scores[keep], of_level[keep], self.nms_thresh)]
            found.append(decoded[keep[:kept]])
        return found

    def _limit(self, numbers: Mapping[str, int], size: Sequence[int]) -> int:
        return numbers["training"] if self.training else limit(numbers["testing"], size, self.limit_voxels)

    def losses(
        self, objectness: Tensor, deltas: Tensor, anchors: Sequence[Tensor], targets: Sequence[Target]
    ) -> Losses:
        """Binary cross entropy of objectness and smooth L1 loss of boxes, over the anchors drawn for each image."""
        with torch.no_grad():
            matched = [
                self.proposal_matcher.match(t["boxes"], boxes) for t, boxes in zip(targets, anchors, strict=True)
            ]
            labels = [
                unless_unknown(
                    (where >= 0).long() - (where == Matcher.BETWEEN_THRESHOLDS).long(), boxes, target.get("valid")
                )
                for where, boxes, target in zip(matched, anchors, targets, strict=True)
            ]
            positives, negatives = self.fg_bg_sampler(labels)
        classified, moved = objectness.sum() * 0, deltas.sum() * 0
        for i, target in enumerate(targets):
            at, every = positives[i].nonzero()[:, 0], (positives[i] | negatives[i]).nonzero()[:, 0]
            share = 1 / max(len(every), 1)
            true = positives[i][every].float()
            classified = classified + share * F.binary_cross_entropy_with_logits(
                objectness[i, every], true, reduction="sum"
            )
            wanted = self.box_coder.encode_single(target["boxes"][matched[i][at]], anchors[i][at])
            moved = moved + share * F.smooth_l1_loss(deltas[i, at], wanted, beta=BETA, reduction="sum")
        count = objectness.new_tensor(len(targets))
        return {"objectness": (classified, count), "rpn_box": (moved, count)}


def unless_unknown(labels: Tensor, boxes: Tensor, valid: Tensor | None) -> Tensor:
    """Change background labels (0) of boxes (N, 6) to -1 if the voxel at the box's centre is unknown. Return (N,)."""
    if valid is None:
        return labels
    size = torch.tensor(valid.shape, device=boxes.device)
    centre = ((boxes[:, :3] + boxes[:, 3:]) / 2).floor().long()
    z, y, x = torch.minimum(centre.clamp(min=0), size - 1).unbind(1)
    return labels.where((labels != 0) | valid[z, y, x], -1)
