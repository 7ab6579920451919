"""Faster R-CNN and Mask R-CNN for volumes, on any backbone, with optional voxel-wise heads.

Source: He et al. 2017, arXiv:1703.06870. Names, arguments and defaults are torchvision's, extended by one axis. Unlike
in torchvision, images keep their size and values unless sizes, mean or std are given.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from math import lcm, prod
from typing import Any

import torch
from torch import Tensor, nn

from deepem.models.detection.anchors import AnchorGenerator
from deepem.models.detection.boxes import remove_small_boxes
from deepem.models.detection.dense import DenseHeads
from deepem.models.detection.heads import FastRCNNPredictor, MaskRCNNHeads, MaskRCNNPredictor, TwoMLPHead
from deepem.models.detection.masks import paste_masks_in_volume
from deepem.models.detection.roi_align import MultiScaleRoIAlign
from deepem.models.detection.roi_heads import RoIHeads
from deepem.models.detection.rpn import Losses, RegionProposalNetwork, RPNHead
from deepem.models.detection.targets import from_labels, placed
from deepem.models.detection.transform import GeneralizedRCNNTransform, Target, resize_boxes
from deepem.utils.errors import InputError
from deepem.utils.geometry import vec3

INSTANCE = "instance"
"""Name of the output that holds the objects, and the key of their labels in a batch."""

LOSSES = ("objectness", "rpn_box", "classifier", "box", "mask")

SMALLEST = 1e-2
"""True boxes with a shorter side are ignored."""

SIDE = 8
"""Side of the default anchors of a feature map, in voxels of the map."""


class FasterRCNN(nn.Module):
    """Faster R-CNN: detects objects with boxes, classes and scores.

    As in the papers, the losses of a sample are means over the anchors or proposals drawn from it. The losses of a
    batch are sums over its samples, so that two halves of a batch add up to the whole.

    Args:
        backbone: (N, C, Z, Y, X) -> a feature map, or an OrderedDict of maps, finest first. Its attributes are
            `out_channels`, a number or one equal number per map; `strides`, name -> (z, y, x); and `multiple`, if the
            sides of an image must be multiples of something other than the strides.
        num_classes: Number of classes, including the background, which is class 0. Leave it out if `box_predictor` is
            given.
        min_size: As in `GeneralizedRCNNTransform`, as are `max_size`, `image_mean` and `image_std`.
        rpn_anchor_generator: By default cubes of 8 voxels of each map, and boxes twice and half as long in y as in x.
        rpn_head: By default `RPNHead` with `rpn_conv_depth` convolutions.
        box_roi_pool: By default 7^3 bins on all maps except ``pool``.
        box_head: By default `TwoMLPHead` of `representation_size`.
        box_predictor: By default `FastRCNNPredictor`.
        dense_spec: Name -> (C, Z, Y, X) of voxel-wise heads.
        loss_weights: Factor of each loss by name; 1 by default.
        min_voxels: Ignore objects of fewer voxels in training.
        generator: Draws the training anchors and proposals; by default torch's own generator.

    All other arguments belong to `RegionProposalNetwork` and `RoIHeads`, with the prefix ``rpn_`` or ``box_``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int | None = None,
        min_size: int | Sequence[int] | None = None,
        max_size: int | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        rpn_anchor_generator: AnchorGenerator | None = None,
        rpn_head: nn.Module | None = None,
        rpn_pre_nms_top_n_train: int = 2000,
        rpn_pre_nms_top_n_test: int = 1000,
        rpn_post_nms_top_n_train: int = 2000,
        rpn_post_nms_top_n_test: int = 1000,
        rpn_nms_thresh: float = 0.7,
        rpn_fg_iou_thresh: float = 0.7,
        rpn_bg_iou_thresh: float = 0.3,
        rpn_batch_size_per_image: int = 256,
        rpn_positive_fraction: float = 0.5,
        rpn_score_thresh: float = 0.0,
        box_roi_pool: MultiScaleRoIAlign | None = None,
        box_head: nn.Module | None = None,
        box_predictor: nn.Module | None = None,
        box_score_thresh: float = 0.05,
        box_nms_thresh: float = 0.5,
        box_detections_per_img: int = 100,
        box_fg_iou_thresh: float = 0.5,
        box_bg_iou_thresh: float = 0.5,
        box_batch_size_per_image: int = 512,
        box_positive_fraction: float = 0.25,
        bbox_reg_weights: Sequence[float] | None = None,
        *,
        rpn_conv_depth: int = 1,
        representation_size: int = 1024,
        dense_spec: Mapping[str, Sequence[int]] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        min_voxels: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if (num_classes is None) == (box_predictor is None):
            raise InputError("num_classes", num_classes, "a number, or a box_predictor, not both")
        if unknown := sorted(set(loss_weights or {}) - set(LOSSES)):
            raise InputError("loss_weights", unknown[0], f"one of {', '.join(LOSSES)}")
        self.backbone = backbone
        channels, strides = channels_of(backbone), strides_of(backbone)
        self.out_channels = channels
        sizes = default_sizes(strides)
        anchors = rpn_anchor_generator or AnchorGenerator(sizes, [[0.5, 1.0, 2.0]] * len(sizes))
        head = rpn_head or RPNHead(channels, anchors.num_anchors_per_location()[0], rpn_conv_depth)
        self.rpn = RegionProposalNetwork(
            anchors,
            head,
            rpn_fg_iou_thresh,
            rpn_bg_iou_thresh,
            rpn_batch_size_per_image,
            rpn_positive_fraction,
            {"training": rpn_pre_nms_top_n_train, "testing": rpn_pre_nms_top_n_test},
            {"training": rpn_post_nms_top_n_train, "testing": rpn_post_nms_top_n_test},
            rpn_nms_thresh,
            rpn_score_thresh,
            generator,
        )
        pool = box_roi_pool or roi_pool(strides, 7)
        self.roi_heads = RoIHeads(
            pool,
            box_head or TwoMLPHead(channels * prod(pool.output_size), representation_size),
            box_predictor or FastRCNNPredictor(representation_size, num_classes or 0),
            box_fg_iou_thresh,
            box_bg_iou_thresh,
            box_batch_size_per_image,
            box_positive_fraction,
            bbox_reg_weights,
            box_score_thresh,
            box_nms_thresh,
            box_detections_per_img,
            generator=generator,
        )
        self.dense = DenseHeads(channels, dense_spec) if dense_spec else None
        whole = multiple_of(backbone, strides)
        self.transform = GeneralizedRCNNTransform(
            min_size, max_size, image_mean or (0.0,), image_std or (1.0,), whole, generator
        )
        self.loss_weights = dict(loss_weights or {})
        self.min_voxels = min_voxels

    def forward(self, images: Tensor | Sequence[Tensor]) -> dict[str, Any]:
        """Detect objects in images.

        Args:
            images: (N, C, Z, Y, X), or a list of (C, Z, Y, X).

        Returns:
            Name -> logits (N, C, Z, Y, X) of the dense heads; ``instance``: for each image ``boxes`` (K, 6) in its
            voxels, ``labels`` (K,) and ``scores`` (K,), best first; with masks also ``mask_probs`` (K, m, m, m), the
            bins of the boxes, and ``masks`` (K, Z, Y, X) bool.
        """
        sizes = [vec3(image.shape[1:]) for image in images]
        batch, _ = self.transform(images)
        features = self.features(batch.tensors)
        proposals, _ = self.rpn(batch, features)
        found = self.roi_heads(features, proposals, batch.image_sizes)
        for one, size, original in zip(found, batch.image_sizes, sizes, strict=True):
            one["boxes"] = resize_boxes(one["boxes"], size, original)
            self.finish(one, original)
        return {**self.voxelwise(features, batch.tensors, batch.image_sizes[0], sizes), INSTANCE: found}

    def finish(self, found: dict[str, Tensor], size: Sequence[int]) -> None:
        """Complete the detections of an image with results derived from them."""

    def losses(self, batch: Mapping[str, Any]) -> tuple[Losses, dict[str, Tensor]]:
        """Compute the losses of a batch and the logits of the voxel-wise heads in one forward pass.

        Args:
            batch: ``input`` (N, C, Z, Y, X); ``instance`` (N, C, Z, Y, X) ids, which may cover only the centre of the
                input; ``instance_mask`` (N, 1, Z, Y, X), 0 where nothing is known, and ``instance_classes`` (N, M, 2),
                rows (id, class), are optional. ``targets``, one mapping per image with ``boxes``, ``labels`` and
                ``masks``, replaces ``instance``.

        Returns:
            Name -> (loss, count): the weighted sum over the images, and the number to divide it by for a mean; and
                name -> logits.
        """
        images = batch["input"]
        targets = batch["targets"] if batch.get("targets") is not None else self.targets(batch)
        prepared, resized = self.transform(images, targets)
        resized = [usable(target) for target in resized or ()]
        features = self.features(prepared.tensors)
        proposals, found = self.rpn(prepared, features, resized)
        found |= self.roi_heads.losses(features, proposals, prepared.image_sizes, resized)
        weighted = {name: (self.loss_weights.get(name, 1.0) * loss, count) for name, (loss, count) in found.items()}
        sizes = [vec3(image.shape[1:]) for image in images]
        return weighted, self.voxelwise(features, prepared.tensors, prepared.image_sizes[0], sizes)

    def targets(self, batch: Mapping[str, Any]) -> list[Target]:
        """Extract the objects of each image of a batch from its labels."""
        images, labels = batch["input"], batch[INSTANCE]
        masks, classes = batch.get(f"{INSTANCE}_mask"), batch.get(f"{INSTANCE}_classes")
        found: list[Target] = []
        for i, image in enumerate(images):
            mask = None if masks is None else masks[i, 0]
            volume, mask = placed(labels[i], mask, vec3(image.shape[1:]))
            of_id = None if classes is None else classes[i]
            found.append(from_labels(volume, classes=of_id, mask=mask, min_voxels=self.min_voxels))
        return found

    def features(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Compute the feature maps of images, finest first."""
        found = self.backbone(images)
        return OrderedDict([("0", found)]) if isinstance(found, Tensor) else OrderedDict(found)

    def voxelwise(
        self, features: Mapping[str, Tensor], images: Tensor, covered: Sequence[int], sizes: Sequence[Sequence[int]]
    ) -> dict[str, Tensor]:
        """Compute the logits of the voxel-wise heads, if there are any."""
        if self.dense is None:
            return {}
        if len({tuple(size) for size in sizes}) > 1:
            raise InputError("images", f"sizes {[tuple(size) for size in sizes]}", "one size, with dense heads")
        return self.dense(features, images.shape[2:], covered, sizes[0])  # type: ignore[no-any-return]


class MaskRCNN(FasterRCNN):
    """Mask R-CNN: detects objects with boxes, classes, scores and masks.

    Args:
        backbone: As in `FasterRCNN`. All arguments that are not listed are also those of `FasterRCNN`, in its order;
            all but `num_classes` are keywords.
        num_classes: Number of classes, including the background, which is class 0. Leave it out if `box_predictor` and
            `mask_predictor` are given.
        mask_roi_pool: By default 14^3 bins on all maps except ``pool``.
        mask_head: By default `MaskRCNNHeads` of `mask_layers`.
        mask_predictor: By default `MaskRCNNPredictor`.
        mask_layers: Channels of the convolutions of the mask head.
        mask_threshold: Probability above which a voxel belongs to an object.
        paste_masks: Also return ``masks``, each as large as its image. Labels do not need them:
            `masks.label_volume` makes labels from ``mask_probs``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int | None = None,
        *,
        mask_roi_pool: MultiScaleRoIAlign | None = None,
        mask_head: nn.Module | None = None,
        mask_predictor: nn.Module | None = None,
        mask_layers: Sequence[int] = (256, 256, 256, 256),
        mask_threshold: float = 0.5,
        paste_masks: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(backbone, num_classes, **settings)
        if (num_classes is None) == (mask_predictor is None):
            raise InputError("num_classes", num_classes, "a number, or a mask_predictor, not both")
        widths = [self.out_channels, *mask_layers]
        self.roi_heads.mask_roi_pool = mask_roi_pool or roi_pool(strides_of(backbone), 14)
        self.roi_heads.mask_head = mask_head or MaskRCNNHeads(self.out_channels, mask_layers)
        self.roi_heads.mask_predictor = mask_predictor or MaskRCNNPredictor(widths[-1], widths[-1], num_classes or 0)
        self.mask_threshold, self.paste_masks = mask_threshold, paste_masks

    def finish(self, found: dict[str, Tensor], size: Sequence[int]) -> None:
        """Add the masks, each as large as the image."""
        if self.paste_masks:
            found["masks"] = paste_masks_in_volume(found["mask_probs"], found["boxes"], vec3(size), self.mask_threshold)


def channels_of(backbone: nn.Module) -> int:
    """Number of channels of a backbone's feature maps, which is the same for all."""
    given: Any = getattr(backbone, "out_channels", None)
    channels = set(given.values()) if isinstance(given, Mapping) else {given}
    if len(channels) != 1 or not all(isinstance(n, int) for n in channels):
        raise InputError("backbone", f"out_channels {given}", "one number for all of its maps: put an FPN on it")
    return int(channels.pop())


def strides_of(backbone: nn.Module) -> dict[str, tuple[int, int, int]]:
    """Name -> (z, y, x) stride of a backbone's feature maps; empty if the backbone has no `strides`."""
    return {name: vec3(stride) for name, stride in (getattr(backbone, "strides", None) or {}).items()}


def multiple_of(backbone: nn.Module, strides: Mapping[str, Sequence[int]]) -> list[int]:
    """Divisor of a batch's padded sides: the backbone's `multiple`, or its strides except ``pool``."""
    own: Any = getattr(backbone, "multiple", None)
    every = [own] if own else [stride for name, stride in strides.items() if name != "pool"] or [(32, 32, 32)]
    return [lcm(*(int(one[axis]) for one in every)) for axis in range(3)]


def default_sizes(strides: Mapping[str, Sequence[int]]) -> list[list[float]]:
    """One anchor size per map, 8 times the cube root of its strides' product; five sizes if the strides are unknown."""
    if not strides:
        return [[32, 64, 128, 256, 512]]
    return [[float(round(SIDE * prod(stride) ** (1 / 3)))] for stride in strides.values()]


def roi_pool(strides: Mapping[str, Sequence[int]], bins: int) -> MultiScaleRoIAlign:
    """RoIAlign on the maps of a backbone except ``pool``, which serves proposals only."""
    names = [name for name in strides if name != "pool"] or ["0", "1", "2", "3"]
    return MultiScaleRoIAlign(names, bins, 2, strides=strides)


def usable(target: Target) -> Target:
    """Drop the boxes of a target that have no volume."""
    boxes = target["boxes"].reshape(-1, 6)
    keep = remove_small_boxes(boxes, SMALLEST)
    if len(keep) == len(boxes):
        return {**target, "boxes": boxes.float()}
    along = [name for name in ("labels", "masks", "channels", "ids", "voxels") if target.get(name) is not None]
    return {**target, "boxes": boxes[keep].float(), **{name: target[name][keep] for name in along}}
