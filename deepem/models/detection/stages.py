"""The numbers that decide what the two stages of a detector propose, train on and keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stages:
    """The settings of `RegionProposalNetwork` (``rpn_``) and `RoIHeads` (``box_``), with torchvision's defaults.

    Attributes:
        rpn_pre_nms_top_n_train: Proposals kept per feature map before non-maximum suppression, in training.
        rpn_pre_nms_top_n_test: The same in testing.
        rpn_post_nms_top_n_train: Proposals kept per image after non-maximum suppression, in training.
        rpn_post_nms_top_n_test: The same in testing.
        rpn_nms_thresh: IoU above which a proposal suppresses those with a lower score.
        rpn_fg_iou_thresh: Anchors with at least this IoU with an object are trained as objects.
        rpn_bg_iou_thresh: Anchors with less than this IoU with every object are trained as background.
        rpn_batch_size_per_image: Number of anchors to train on per image.
        rpn_positive_fraction: Largest share of objects among them.
        rpn_score_thresh: Drop proposals with a lower score.
        box_score_thresh: Drop objects with a lower score.
        box_nms_thresh: IoU above which an object suppresses those of its class with a lower score.
        box_detections_per_img: Number of best objects to keep per image.
        box_fg_iou_thresh: Proposals with at least this IoU with an object are trained as that object.
        box_bg_iou_thresh: Proposals with less than this IoU with every object are trained as background.
        box_batch_size_per_image: Number of proposals to train on per image.
        box_positive_fraction: Largest share of objects among them.
        bbox_reg_weights: Weights of the offsets of boxes, as in `BoxCoder`.
    """

    rpn_pre_nms_top_n_train: int = 2000
    rpn_pre_nms_top_n_test: int = 1000
    rpn_post_nms_top_n_train: int = 2000
    rpn_post_nms_top_n_test: int = 1000
    rpn_nms_thresh: float = 0.7
    rpn_fg_iou_thresh: float = 0.7
    rpn_bg_iou_thresh: float = 0.3
    rpn_batch_size_per_image: int = 256
    rpn_positive_fraction: float = 0.5
    rpn_score_thresh: float = 0.0
    box_score_thresh: float = 0.05
    box_nms_thresh: float = 0.5
    box_detections_per_img: int = 100
    box_fg_iou_thresh: float = 0.5
    box_bg_iou_thresh: float = 0.5
    box_batch_size_per_image: int = 512
    box_positive_fraction: float = 0.25
    bbox_reg_weights: Sequence[float] | None = None

    def rpn(self) -> dict[str, Any]:
        """Return the keyword arguments of `RegionProposalNetwork`."""
        names = ("fg_iou_thresh", "bg_iou_thresh", "batch_size_per_image", "positive_fraction", "nms_thresh",
                 "score_thresh")  # fmt: skip
        return {
            **{name: getattr(self, f"rpn_{name}") for name in names},
            "pre_nms_top_n": {"training": self.rpn_pre_nms_top_n_train, "testing": self.rpn_pre_nms_top_n_test},
            "post_nms_top_n": {"training": self.rpn_post_nms_top_n_train, "testing": self.rpn_post_nms_top_n_test},
        }

    def box(self) -> dict[str, Any]:
        """Return the keyword arguments of `RoIHeads`."""
        names = ("fg_iou_thresh", "bg_iou_thresh", "batch_size_per_image", "positive_fraction", "score_thresh",
                 "nms_thresh", "detections_per_img")  # fmt: skip
        return {"bbox_reg_weights": self.bbox_reg_weights, **{name: getattr(self, f"box_{name}") for name in names}}
