"""Voxel-wise outputs on any backbone: an FPN, the sum of its maps, and a decoder that also sees the image.

::

    image - backbone - FPN - p2 + p3 + p4 + p5, brought to the size of p2
      |                         |
      |                       1x1x1
      |                         | trilinear x 2
      |- conv - conv /2 ------ (+) - conv
      |                         | trilinear x 2
      '- conv ---------------- (+) - conv - heads

The sum over the pyramid is that of panoptic FPN (Kirillov et al. 2019, arXiv:1901.02446). Edges between neighbouring
voxels need detail that the coarse maps have lost, so convolutions of the image are added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.backbones.parts.base import Backbone, named, through
from deepem.models.backbones.parts.fpn import WithFPN
from deepem.models.backbones.resnet import resnet18
from deepem.models.emvision.sizes import UShape
from deepem.models.emvision.utils import div3
from deepem.models.layers import Crop, OutputBlock, Spec
from deepem.utils.geometry import Vec3, vec3

CreateBackbone = Callable[..., Any]


def _default(create_backbone: CreateBackbone | None) -> CreateBackbone:
    return resnet18 if create_backbone is None else create_backbone


def _multiple(backbone: Any) -> Vec3:
    """Divisor of the sides of an image: the backbone's `multiple`, or else its coarsest stride."""
    return vec3(getattr(backbone, "multiple", list(backbone.strides.values())[-1]))


class Layer(nn.Module):
    """A 3x3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: Vec3 = (1, 1, 1)) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm3d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) -> (N, out_channels, ...)."""
        return F.relu(self.norm(self.conv(x)))


def halvings(stride: Vec3) -> list[Vec3]:
    """Factors (z, y, x) that undo a stride, finest first: 2 along an axis, or the remaining factor once that is odd."""
    factors = []
    while stride != (1, 1, 1):
        factors.append(vec3(2 if s % 2 == 0 else s for s in stride))
        stride = div3(stride, factors[-1])
    return factors


class WayUp(nn.Module):
    """Decoder from the finest map of a pyramid to the resolution of the image, which adds convolutions of the image.

    Args:
        in_channels: Channels of the map.
        image_channels: Channels of the image.
        width: Channels at full resolution; each coarser level has twice as many.
        stride: Voxels of the image per voxel of the map, (z, y, x).
        checkpointing: Recompute activations within each layer in the backward pass, to save memory.
    """

    def __init__(
        self, in_channels: int, image_channels: int, width: int, stride: Vec3, checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.factors = halvings(stride)
        self.checkpointing = checkpointing
        widths = [width << level for level in range(len(self.factors) + 1)]
        steps = [(1, 1, 1), *self.factors]
        self.detail = nn.ModuleList(
            Layer(i, o, s) for i, o, s in zip([image_channels, *widths], widths[:-1], steps, strict=False)
        )
        self.lateral = nn.Conv3d(in_channels, widths[-1], 1)
        self.mix = nn.ModuleList(nn.Conv3d(widths[i + 1], widths[i], 1) for i in range(len(self.factors)))
        self.merge = nn.ModuleList(Layer(w, w) for w in widths[:-1])

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Map (N, in_channels, z, y, x) and image (N, C, Z, Y, X) -> (N, width, Z, Y, X)."""
        details = [image]
        for layer in self.detail:
            details.append(through(layer, details[-1], self.checkpointing))
        x = self.lateral(x)
        for mix, merge, detail in reversed(list(zip(self.mix, self.merge, details[1:], strict=True))):
            x = F.interpolate(mix(x), size=detail.shape[-3:], mode="trilinear", align_corners=False)
            x = through(merge, x + detail, self.checkpointing)
        return x


class DenseFPN(nn.Module):
    """A backbone with one head per output at full resolution.

    Args:
        backbone: Backbone that returns a tensor or an OrderedDict of maps, and has `out_channels` and `strides`.
        in_spec: One input.
        out_spec: The heads.
        width: Channels of the pyramid's maps; a backbone that already returns a pyramid keeps its own.
        dense_width: Channels at full resolution.
        cropsz: Fraction of the patch (z, y, x) that the output keeps.
        checkpointing: Recompute the maps on the way up in the backward pass, to save memory.

    Attributes:
        shape: Which patch sizes fit.
        num_layers: Number of layers that `layer_of` distinguishes, for layer-wise learning-rate decay.
    """

    def __init__(
        self,
        backbone: Any,
        in_spec: Spec,
        out_spec: Spec,
        *,
        width: int = 128,
        dense_width: int = 16,
        cropsz: Sequence[float] | None = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        (shape,) = in_spec.values()
        self.backbone: Any = backbone if getattr(backbone, "is_pyramid", False) else WithFPN(backbone, width)
        finest = next(iter(self.backbone.strides))
        self.up = WayUp(
            self.backbone.out_channels[finest], shape[-4], dense_width, self.backbone.strides[finest], checkpointing
        )
        self.out = OutputBlock(dense_width, out_spec)
        self.crop = None if cropsz is None else Crop(cropsz)
        self.shape = UShape((), stem=_multiple(self.backbone))
        self.num_layers: int = getattr(self.backbone, "num_layers", 1) + 1

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, Z, Y, X) in [0, 1] -> {head: logits (N, C, Z, Y, X)}.

        Raises:
            InputError: the sides are not multiples of the backbone's `multiple`.
        """
        patch = vec3(x.shape[-3:])
        self.shape.output_size(patch, "network input")
        finest, *coarser = named(self.backbone(x), self.backbone.out_channels).values()
        for level in coarser:
            finest = finest + F.interpolate(level, size=finest.shape[-3:], mode="trilinear", align_corners=False)
        outputs: dict[str, Tensor] = self.out(self.up(finest, x))
        return outputs if self.crop is None else {name: self.crop(y, patch) for name, y in outputs.items()}

    def layer_of(self, name: str) -> int:
        """The layers of the backbone (see `Backbone.layer_of`), then one for the decoder and the heads."""
        if name.startswith("backbone.") and isinstance(self.backbone, Backbone):
            return self.backbone.layer_of(name.removeprefix("backbone."))
        return self.num_layers - 1


def output_size(input_size: Vec3, *, create_backbone: CreateBackbone | None = None, **_: object) -> Vec3:
    """Return `input_size` if it fits the backbone, else raise InputError with the nearest sizes that work."""
    with torch.device("meta"):
        backbone = _default(create_backbone)(in_channels=1)
    return UShape((), stem=_multiple(backbone)).output_size(input_size)


def create_model(
    *,
    in_spec: Spec,
    out_spec: Spec,
    create_backbone: Callable[..., Any] | None = None,
    cropsz: tuple[float, float, float] | None = None,
    fpn_width: int = 128,
    dense_width: int = 16,
    checkpointing: bool = False,
) -> DenseFPN:
    """Build a backbone, a feature pyramid and one head per output.

    Args:
        in_spec: The input.
        out_spec: The heads.
        create_backbone: Builds the backbone from `in_channels`; ResNet-18 by default.
        cropsz: Fraction of the patch that the output keeps.
        fpn_width: Channels of the feature pyramid.
        dense_width: Channels at full resolution; twice as many at half of it, and so on.
        checkpointing: Save memory in training by computing feature maps twice.
    """
    (shape,) = in_spec.values()
    backbone = _default(create_backbone)(in_channels=shape[-4])
    return DenseFPN(
        backbone,
        in_spec,
        out_spec,
        width=fpn_width,
        dense_width=dense_width,
        cropsz=cropsz,
        checkpointing=checkpointing,
    )
