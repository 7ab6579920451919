"""Faster R-CNN for volumes: boxes, classes and scores of objects on any backbone, with optional voxel-wise heads.

Source: Ren et al. 2015, arXiv:1506.01497. Names, arguments and defaults are torchvision's, extended by one axis. Unlike
in torchvision, images keep their size and values unless sizes, mean or std are given.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from deepem.models.detection.anchors import AnchorGenerator
from deepem.models.detection.boxes import remove_small_boxes
from deepem.models.detection.dense import DenseHeads
from deepem.models.detection.heads import FastRCNNPredictor, TwoMLPHead
from deepem.models.detection.maps import channels_of, default_sizes, multiple_of, roi_pool, strides_of
from deepem.models.detection.roi_align import MultiScaleRoIAlign
from deepem.models.detection.roi_heads import RoIHeads
from deepem.models.detection.rpn import Losses, RegionProposalNetwork, RPNHead
from deepem.models.detection.stages import Stages
from deepem.models.detection.targets import from_labels, placed
from deepem.models.detection.transform import GeneralizedRCNNTransform, Target, resize_boxes
from deepem.utils.errors import InputError
from deepem.utils.geometry import vec3

INSTANCE = "instance"
"""Name of the output that holds the objects, and the key of their labels in a batch."""

LOSSES = ("objectness", "rpn_box", "classifier", "box", "mask")

SMALLEST = 1e-2
"""True boxes with a shorter side are ignored."""


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
        limit_voxels: In testing, the numbers of proposals and of detections are for images of up to this many voxels;
            larger images have more in proportion. By default they hold for images of any size, as in torchvision.
        settings: The fields of `Stages`.
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
        *,
        box_roi_pool: MultiScaleRoIAlign | None = None,
        box_head: nn.Module | None = None,
        box_predictor: nn.Module | None = None,
        rpn_conv_depth: int = 1,
        representation_size: int = 1024,
        dense_spec: Mapping[str, Sequence[int]] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        min_voxels: int = 1,
        generator: torch.Generator | None = None,
        limit_voxels: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if (num_classes is None) == (box_predictor is None):
            raise InputError("num_classes", num_classes, "a number, or a box_predictor, not both")
        if unknown := sorted(set(loss_weights or {}) - set(LOSSES)):
            raise InputError("loss_weights", unknown[0], f"one of {', '.join(LOSSES)}")
        stages = Stages(**settings)
        shared: dict[str, Any] = {"generator": generator, "limit_voxels": limit_voxels}
        channels, strides = channels_of(backbone), strides_of(backbone)
        sizes = default_sizes(strides)
        anchors = rpn_anchor_generator or AnchorGenerator(sizes, [[0.5, 1.0, 2.0]] * len(sizes))
        head = rpn_head or RPNHead(channels, anchors.num_anchors_per_location()[0], rpn_conv_depth)
        pool = box_roi_pool or roi_pool(strides, 7)
        box_head = box_head or TwoMLPHead(channels * prod(pool.output_size), representation_size)
        box_predictor = box_predictor or FastRCNNPredictor(representation_size, num_classes or 0)
        self.backbone, self.out_channels = backbone, channels
        self.rpn = RegionProposalNetwork(anchors, head, **stages.rpn(), **shared)
        self.roi_heads = RoIHeads(pool, box_head, box_predictor, **stages.box(), **shared)
        self.dense = DenseHeads(channels, dense_spec) if dense_spec else None
        whole = multiple_of(backbone, strides)
        self.transform = GeneralizedRCNNTransform(
            min_size, max_size, image_mean or (0.0,), image_std or (1.0,), whole, generator
        )
        self.loss_weights, self.min_voxels = dict(loss_weights or {}), min_voxels

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


def usable(target: Target) -> Target:
    """Drop the boxes of a target that have no volume."""
    boxes = target["boxes"].reshape(-1, 6)
    keep = remove_small_boxes(boxes, SMALLEST)
    if len(keep) == len(boxes):
        return {**target, "boxes": boxes.float()}
    along = [name for name in ("labels", "masks", "channels", "ids", "voxels") if target.get(name) is not None]
    return {**target, "boxes": boxes[keep].float(), **{name: target[name][keep] for name in along}}
