"""Faster R-CNN and Mask R-CNN for volumes, on any backbone, beside dense heads where wanted.

He et al. 2017, arXiv:1703.06870. Names, arguments and defaults are those of torchvision's with an axis more, but
images keep their size and values unless sizes, mean or std are given.
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
"""The output that objects are given as, and the key of their labels in a batch."""

LOSSES = ("objectness", "rpn_box", "classifier", "box", "mask")

SMALLEST = 1e-2
"""True boxes with a shorter side are no objects."""

SIDE = 8
"""Side of the default anchors of a feature map, in its voxels."""


class FasterRCNN(nn.Module):
    """Finds objects: their boxes, classes and scores.

    The losses of a sample are means over what was drawn of it, as in the papers. Losses of a batch are sums over its
    samples, so that two halves of a batch add up to the whole.

    Args:
        backbone: (N, C, Z, Y, X) -> a feature map, or an OrderedDict of them, finest first. Attributes: `out_channels`,
            a number or one per map, all equal; `strides`, name -> (z, y, x); and, if the sides of an image must be
            multiples of something else than the strides, `multiple`.
        num_classes: With the background, which is class 0. Not given: a `box_predictor` knows.
        min_size: As in `GeneralizedRCNNTransform`, as are `max_size`, `image_mean` and `image_std`.
        rpn_anchor_generator: Not given: cubes of 8 voxels of each map, twice and half as long in y as in x too.
        rpn_head: Not given: `RPNHead` with `rpn_conv_depth` convolutions.
        box_roi_pool: Not given: 7^3 bins on all maps but ``pool``.
        box_head: Not given: `TwoMLPHead` of `representation_size`.
        box_predictor: Not given: `FastRCNNPredictor`.
        dense_spec: Name -> (C, Z, Y, X) of heads for every voxel.
        loss_weights: By name of a loss what it is multiplied by; 1 if not given.
        min_voxels: Objects of fewer voxels are not trained on.
        generator: Draws what is trained on; torch's own if not given.

    Others are those of `RegionProposalNetwork` and `RoIHeads`, with the prefix ``rpn_`` or ``box_``.
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
        """What is in images.

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
        """Add to what was found in an image what is derived from it."""

    def losses(self, batch: Mapping[str, Any]) -> tuple[Losses, dict[str, Tensor]]:
        """Losses of a batch and the logits of the dense heads, from one forward pass.

        Args:
            batch: ``input`` (N, C, Z, Y, X); ``instance`` (N, C, Z, Y, X) ids, which may cover only the centre of the
                input; ``instance_mask`` (N, 1, Z, Y, X), 0 where nothing is known, and ``instance_classes`` (N, M, 2),
                rows (id, class), are optional. ``targets``, one mapping per image with ``boxes``, ``labels`` and
                ``masks``, takes the place of ``instance``.

        Returns:
            Name -> (loss, count): the weighted sum over the images and what a mean of it is taken over; and name ->
            logits.
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
        """The objects of each image of a batch, from its labels."""
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
        """The feature maps of images, finest first."""
        found = self.backbone(images)
        return OrderedDict([("0", found)]) if isinstance(found, Tensor) else OrderedDict(found)

    def voxelwise(
        self, features: Mapping[str, Tensor], images: Tensor, covered: Sequence[int], sizes: Sequence[Sequence[int]]
    ) -> dict[str, Tensor]:
        """The logits of the dense heads, if there are any."""
        if self.dense is None:
            return {}
        if len({tuple(size) for size in sizes}) > 1:
            raise InputError("images", f"sizes {[tuple(size) for size in sizes]}", "one size, with dense heads")
        return self.dense(features, images.shape[2:], covered, sizes[0])  # type: ignore[no-any-return]


class MaskRCNN(FasterRCNN):
    """Finds objects: their boxes, classes, scores and masks.

    Args:
        backbone: As all others that are not listed, of `FasterRCNN`, in its order, all by keyword but `num_classes`.
        num_classes: With the background, which is class 0. Not given: a `box_predictor` and a `mask_predictor` know.
        mask_roi_pool: Not given: 14^3 bins on all maps but ``pool``.
        mask_head: Not given: `MaskRCNNHeads` of `mask_layers`.
        mask_predictor: Not given: `MaskRCNNPredictor`.
        mask_layers: Channels of the convolutions of the mask head.
        mask_threshold: Probability above which a voxel is of an object.
        paste_masks: Give ``masks``, each as large as its image; `masks.label_volume` makes labels of ``mask_probs``
            without them.
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
    """Channels of the feature maps of a backbone, which are the same for all."""
    given: Any = getattr(backbone, "out_channels", None)
    channels = set(given.values()) if isinstance(given, Mapping) else {given}
    if len(channels) != 1 or not all(isinstance(n, int) for n in channels):
        raise InputError("backbone", f"out_channels {given}", "one number for all of its maps: put an FPN on it")
    return int(channels.pop())


def strides_of(backbone: nn.Module) -> dict[str, tuple[int, int, int]]:
    """Name -> (z, y, x) stride of the feature maps of a backbone; nothing if it does not say."""
    return {name: vec3(stride) for name, stride in (getattr(backbone, "strides", None) or {}).items()}


def multiple_of(backbone: nn.Module, strides: Mapping[str, Sequence[int]]) -> list[int]:
    """What the sides of a batch are padded to multiples of: what the backbone says, or its strides but ``pool``."""
    own: Any = getattr(backbone, "multiple", None)
    every = [own] if own else [stride for name, stride in strides.items() if name != "pool"] or [(32, 32, 32)]
    return [lcm(*(int(one[axis]) for one in every)) for axis in range(3)]


def default_sizes(strides: Mapping[str, Sequence[int]]) -> list[list[float]]:
    """One size of anchors per map, the cube root of its strides' product times 8; five where they are not known."""
    if not strides:
        return [[32, 64, 128, 256, 512]]
    return [[float(round(SIDE * prod(stride) ** (1 / 3)))] for stride in strides.values()]


def roi_pool(strides: Mapping[str, Sequence[int]], bins: int) -> MultiScaleRoIAlign:
    """RoIAlign on the maps of a backbone but ``pool``, which is for proposals only."""
    names = [name for name in strides if name != "pool"] or ["0", "1", "2", "3"]
    return MultiScaleRoIAlign(names, bins, 2, strides=strides)


def usable(target: Target) -> Target:
    """A target without the boxes that have no volume."""
    boxes = target["boxes"].reshape(-1, 6)
    keep = remove_small_boxes(boxes, SMALLEST)
    if len(keep) == len(boxes):
        return {**target, "boxes": boxes.float()}
    along = [name for name in ("labels", "masks", "channels", "ids", "voxels") if target.get(name) is not None]
    return {**target, "boxes": boxes[keep].float(), **{name: target[name][keep] for name in along}}
