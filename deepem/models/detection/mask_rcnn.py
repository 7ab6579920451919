"""Mask R-CNN for volumes: `FasterRCNN` with a mask for each object.

Source: He et al. 2017, arXiv:1703.06870.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from deepem.models.detection.faster_rcnn import INSTANCE, LOSSES, FasterRCNN
from deepem.models.detection.heads import MaskRCNNHeads, MaskRCNNPredictor
from deepem.models.detection.maps import roi_pool, strides_of
from deepem.models.detection.masks import paste_masks_in_volume
from deepem.models.detection.roi_align import MultiScaleRoIAlign
from deepem.utils.errors import InputError
from deepem.utils.geometry import vec3

__all__ = ["INSTANCE", "LOSSES", "FasterRCNN", "MaskRCNN"]


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
