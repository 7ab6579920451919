"""Mask R-CNN: objects with boxes, classes and masks, on any backbone, with optional voxel-wise heads."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from deepem.models.detection.anchors import AnchorGenerator
from deepem.models.detection.limits import UNIT
from deepem.models.detection.maps import default_sizes, roi_pool, strides_of
from deepem.models.detection.mask_rcnn import INSTANCE, LOSSES, MaskRCNN
from deepem.models.entry import ungrouped
from deepem.models.layers import Spec
from deepem.utils.errors import InputError


@dataclass(frozen=True)
class Pyramid:
    """The feature pyramid on a backbone that is not a pyramid itself.

    Attributes:
        fpn_width: Channels of the feature pyramid, which is added to backbones that are not a pyramid themselves.
        fpn_pool: Add a coarser map to the pyramid, for proposals only.
    """

    fpn_width: int = 256
    fpn_pool: bool = True


@dataclass(frozen=True)
class Losses:
    """What counts in training, and how much.

    Attributes:
        inst_min_voxels: Ignore objects of fewer voxels in training.
        inst_objectness_weight: Loss weight of the objectness of anchors.
        inst_rpn_box_weight: Loss weight of the boxes of proposals.
        inst_classifier_weight: Loss weight of the classes of proposals.
        inst_box_weight: Loss weight of the final boxes.
        inst_mask_weight: Loss weight of the masks.
    """

    inst_min_voxels: int = 1
    inst_objectness_weight: float = 1.0
    inst_rpn_box_weight: float = 1.0
    inst_classifier_weight: float = 1.0
    inst_box_weight: float = 1.0
    inst_mask_weight: float = 1.0

    @property
    def weights(self) -> dict[str, float]:
        """Loss -> weight."""
        return {name: float(getattr(self, f"inst_{name}_weight")) for name in LOSSES}


@dataclass(frozen=True)
class Images:
    """How images are resized and normalised.

    Attributes:
        min_size: Resize the shorter side of an image to this many voxels; with several values, training draws one at
            random.
        max_size: Limit the longer side to this many voxels.
        image_mean: Subtract this from each channel.
        image_std: Divide each channel by this.
    """

    min_size: list[int] | None = None
    max_size: int | None = None
    image_mean: list[float] | None = None
    image_std: list[float] | None = None


@dataclass(frozen=True)
class Anchors:
    """The boxes that proposals start from.

    Attributes:
        anchor_sizes: Sides of the anchors of each feature map, finest first.
        aspect_ratios: Ratios y/x of the anchors, for each feature map or once for all.
        aspect_ratios_z: Ratios of the z side to the anchor size, for each feature map or once for all.
        anchor_voxel_size: Voxel size z,y,x in the unit of anchor_sizes; 1,1,1 if they are in voxels.
    """

    anchor_sizes: list[list[float]] | None = None
    aspect_ratios: list[list[float]] | None = None
    aspect_ratios_z: list[list[float]] | None = None
    anchor_voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def generator(self, sizes: list[list[float]]) -> AnchorGenerator:
        """Build the anchors, of these sizes unless others are given."""
        sizes = self.anchor_sizes or sizes
        ratios, ratios_z = self.aspect_ratios or [[0.5, 1.0, 2.0]], self.aspect_ratios_z or [[1.0]]
        each = [one * len(sizes) if len(one) == 1 else one for one in (ratios, ratios_z)]
        return AnchorGenerator(sizes, *each, voxel_size=self.anchor_voxel_size)


@dataclass(frozen=True)
class Proposals:
    """The first stage.

    Attributes:
        rpn_conv_depth: Number of convolutions before the objectness and box layers.
        rpn_rois: Number of anchors to train on per image.
        rpn_positive_fraction: Largest share of objects among these anchors.
        rpn_pre_nms: Proposals kept per feature map before non-maximum suppression, in training and in evaluation; in
            evaluation per 64^3 voxels of a larger image.
        rpn_post_nms: Proposals kept per image after non-maximum suppression, in training and in evaluation; in
            evaluation per 64^3 voxels of a larger image.
        rpn_nms_thresh: Suppress a proposal whose IoU with a better one is above this.
        rpn_score_thresh: Drop proposals with a lower score.
        rpn_fg_iou_thresh: Anchors with at least this IoU with an object are trained as objects.
        rpn_bg_iou_thresh: Anchors with less than this IoU with every object are trained as background.
    """

    rpn_conv_depth: int = 1
    rpn_rois: int = 256
    rpn_positive_fraction: float = 0.5
    rpn_pre_nms: list[int] | None = None
    rpn_post_nms: list[int] | None = None
    rpn_nms_thresh: float = 0.7
    rpn_score_thresh: float = 0.0
    rpn_fg_iou_thresh: float = 0.7
    rpn_bg_iou_thresh: float = 0.3

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `FasterRCNN`."""
        before = pair("rpn_pre_nms", self.rpn_pre_nms, (2000, 1000))
        after = pair("rpn_post_nms", self.rpn_post_nms, (2000, 1000))
        return {
            "rpn_pre_nms_top_n_train": before[0],
            "rpn_pre_nms_top_n_test": before[1],
            "rpn_post_nms_top_n_train": after[0],
            "rpn_post_nms_top_n_test": after[1],
            "rpn_nms_thresh": self.rpn_nms_thresh,
            "rpn_fg_iou_thresh": self.rpn_fg_iou_thresh,
            "rpn_bg_iou_thresh": self.rpn_bg_iou_thresh,
            "rpn_batch_size_per_image": self.rpn_rois,
            "rpn_positive_fraction": self.rpn_positive_fraction,
            "rpn_score_thresh": self.rpn_score_thresh,
            "rpn_conv_depth": self.rpn_conv_depth,
        }


@dataclass(frozen=True)
class Boxes:
    """The second stage: classes and boxes.

    Attributes:
        box_pool: Bins per axis for the features of a box.
        box_width: Width of the two layers of the box head.
        box_rois: Number of proposals to train on per image.
        box_positive_fraction: Largest share of objects among these proposals.
        box_fg_iou_thresh: Proposals with at least this IoU with an object are trained as that object.
        box_bg_iou_thresh: Proposals with less than this IoU with every object are trained as background.
        box_score_thresh: Drop objects with a lower score.
        box_nms_thresh: Suppress an object whose IoU with a better one of its class is above this.
        box_detections: Largest number of objects per image, or per 64^3 voxels of a larger one.
    """

    box_pool: int = 7
    box_width: int = 1024
    box_rois: int = 512
    box_positive_fraction: float = 0.25
    box_fg_iou_thresh: float = 0.5
    box_bg_iou_thresh: float = 0.5
    box_score_thresh: float = 0.05
    box_nms_thresh: float = 0.5
    box_detections: int = 100

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `FasterRCNN`."""
        return {
            "box_score_thresh": self.box_score_thresh,
            "box_nms_thresh": self.box_nms_thresh,
            "box_detections_per_img": self.box_detections,
            "box_fg_iou_thresh": self.box_fg_iou_thresh,
            "box_bg_iou_thresh": self.box_bg_iou_thresh,
            "box_batch_size_per_image": self.box_rois,
            "box_positive_fraction": self.box_positive_fraction,
            "representation_size": self.box_width,
        }


@dataclass(frozen=True)
class Masks:
    """The second stage: masks.

    Attributes:
        mask_pool: Bins per axis for the features of a mask; masks have twice as many.
        mask_width: Channels of the convolutions of the mask head; 256 256 256 256 by default.
        mask_threshold: Voxels above this probability belong to the object.
        paste_masks: Return each mask as large as the image.
    """

    mask_pool: int = 14
    mask_width: list[int] | None = None
    mask_threshold: float = 0.5
    paste_masks: bool = True


def build(
    *,
    in_spec: Spec,
    out_spec: Spec,
    create_backbone: Callable[..., nn.Module] | nn.Module | None = None,
    pyramid: Pyramid,
    losses: Losses,
    images: Images,
    anchors: Anchors,
    proposals: Proposals,
    boxes: Boxes,
    masks: Masks,
) -> MaskRCNN:
    """Build the detector on its backbone.

    Args:
        in_spec: The input.
        out_spec: `instance`, with one channel per class, and the voxel-wise heads.
        create_backbone: Builds the backbone from `in_channels`, or is the backbone itself; ResNet-18 by default.
        pyramid: The feature pyramid.
        losses: What counts in training.
        images: Their sizes and values.
        anchors: The boxes to start from.
        proposals: The first stage.
        boxes: The second stage.
        masks: Its masks.
    """
    if INSTANCE not in out_spec:
        raise InputError("model mask_rcnn", f"the outputs {', '.join(out_spec)}", f"{INSTANCE}, the task inst")
    backbone = on_pyramid(create_backbone, next(iter(in_spec.values()))[-4], pyramid)
    strides = strides_of(backbone)
    return MaskRCNN(
        backbone,
        1 + out_spec[INSTANCE][-4],
        **vars(images),
        **proposals.settings(),
        **boxes.settings(),
        rpn_anchor_generator=anchors.generator(default_sizes(strides)),
        box_roi_pool=roi_pool(strides, boxes.box_pool),
        dense_spec={name: shape for name, shape in out_spec.items() if name != INSTANCE},
        loss_weights=losses.weights,
        min_voxels=losses.inst_min_voxels,
        limit_voxels=UNIT,
        mask_roi_pool=roi_pool(strides, masks.mask_pool),
        mask_layers=(256, 256, 256, 256) if masks.mask_width is None else masks.mask_width,
        mask_threshold=masks.mask_threshold,
        paste_masks=masks.paste_masks,
    )


create_model = ungrouped(build)


def on_pyramid(backbone: Callable[..., nn.Module] | nn.Module | None, in_channels: int, pyramid: Pyramid) -> nn.Module:
    """Return the backbone if all its maps have the same number of channels, else add an FPN to it."""
    parts: Any = None
    if backbone is None:
        parts = importlib.import_module("deepem.models.backbones")
        backbone = parts.resnet18
    made: nn.Module = backbone if isinstance(backbone, nn.Module) else backbone(in_channels=in_channels)
    if getattr(made, "is_pyramid", True):
        return made
    parts = parts or importlib.import_module("deepem.models.backbones")
    with_fpn: nn.Module = parts.WithFPN(made, pyramid.fpn_width, parts.LastLevelMaxPool() if pyramid.fpn_pool else None)
    return with_fpn


def pair(flag: str, given: list[int] | None, default: tuple[int, int]) -> tuple[int, int]:
    """A pair of numbers for training and evaluation; a single number is used for both."""
    if given is None:
        return default
    if len(given) not in (1, 2) or min(given) < 1:
        raise InputError(flag, given, "one number, or two: in training and else")
    return given[0], given[-1]
