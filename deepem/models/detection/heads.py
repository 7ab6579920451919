"""Networks that predict the class, the exact box and the mask of each box."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.detection.layers import ConvNormActivation


class TwoMLPHead(nn.Module):
    """Two fully connected layers with ReLU.

    Args:
        in_channels: Number of features of a box, channels times voxels.
        representation_size: Output channels.
    """

    def __init__(self, in_channels: int, representation_size: int) -> None:
        super().__init__()
        self.fc6 = nn.Linear(in_channels, representation_size)
        self.fc7 = nn.Linear(representation_size, representation_size)

    def forward(self, x: Tensor) -> Tensor:
        """(K, C, z, y, x) -> (K, representation_size)."""
        return F.relu(self.fc7(F.relu(self.fc6(x.flatten(1)))))


class FastRCNNPredictor(nn.Module):
    """Predict class logits, and box offsets for each class.

    Args:
        in_channels: Channels of the box head.
        num_classes: Number of classes, including the background, which is class 0.
    """

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(in_channels, num_classes)
        self.bbox_pred = nn.Linear(in_channels, num_classes * 6)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(K, in_channels) -> (K, num_classes) and (K, num_classes * 6)."""
        x = x.flatten(1)
        return self.cls_score(x), self.bbox_pred(x)


class MaskRCNNHeads(nn.Sequential):
    """3^3 convolutions with ReLU.

    Args:
        in_channels: Channels of the features.
        layers: Channels of each convolution.
        dilation: Dilation of all convolutions.
    """

    def __init__(self, in_channels: int, layers: Sequence[int] = (256, 256, 256, 256), dilation: int = 1) -> None:
        channels = [in_channels, *layers]
        super().__init__(*(ConvNormActivation(a, b, dilation=dilation) for a, b in pairwise(channels)))
        _initialise(self)


class MaskRCNNPredictor(nn.Sequential):
    """Predict mask logits for each class at twice the resolution.

    Args:
        in_channels: Channels of the mask head.
        dim_reduced: Channels after the transposed convolution.
        num_classes: Number of classes, including the background.
    """

    def __init__(self, in_channels: int, dim_reduced: int, num_classes: int) -> None:
        super().__init__(
            OrderedDict(
                conv5_mask=nn.ConvTranspose3d(in_channels, dim_reduced, 2, 2),
                relu=nn.ReLU(inplace=True),
                mask_fcn_logits=nn.Conv3d(dim_reduced, num_classes, 1),
            )
        )
        _initialise(self)


def _initialise(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, (nn.Conv3d, nn.ConvTranspose3d)):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
