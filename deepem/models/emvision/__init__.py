"""The networks of the EMVision family by their public names; each maps feature maps to feature maps.

Call a name in `__all__` with the channels of the levels to get a module. Default channels are 16 32 64 128 256 512;
`group` is the number of channels per group. Other keywords go to `RSUNet`, and from there to the activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from deepem.models.emvision.dtu import DTU2
from deepem.models.emvision.rsu import WIDTH, RSUNet
from deepem.models.emvision.utils import Triple

__all__ = [
    "DTU2",
    "DynamicRSUNet",
    "RSUNet",
    "RUNet",
    "VRUNet",
    "dynamic_rsunet",
    "isoRSUNet",
    "rsunet_2d3d",
    "rsunet_2d3d_gn",
    "rsunet_act",
    "rsunet_act_gn",
    "rsunet_act_in",
    "rsunet_act_nn",
    "rsunet_act_nn_gn",
    "rsunet_gn",
    "rsunet_v3",
    "vrunet",
]


def isoRSUNet(width: Sequence[int] = WIDTH, **options: Any) -> RSUNet:
    """RSUNet pooled by 2 along z as well, for isotropic voxels."""
    return RSUNet(width, factors=[(2, 2, 2)] * (len(width) - 1), **options)


def rsunet_gn(width: Sequence[int] = WIDTH, group: int = 16, **options: Any) -> RSUNet:
    """RSUNet with group norm."""
    return RSUNet(width, norm="group", group=group, **options)


def rsunet_v3(width: Sequence[int] = WIDTH, **options: Any) -> RSUNet:
    """RSUNet whose state dict has norm and convolution side by side, without a norm at the end."""
    return RSUNet(width, layout="", final=False, **options)


def rsunet_act(width: Sequence[int] = WIDTH, act: str = "ReLU", **options: Any) -> RSUNet:
    """RSUNet with any activation."""
    return RSUNet(width, act=act, layout="norm_act", **options)


def rsunet_act_gn(width: Sequence[int] = WIDTH, group: int = 16, act: str = "ReLU", **options: Any) -> RSUNet:
    """RSUNet with any activation and group norm."""
    return rsunet_act(width, act, norm="group", group=group, **options)


def rsunet_act_in(width: Sequence[int] = WIDTH, act: str = "ReLU", **options: Any) -> RSUNet:
    """RSUNet with any activation and instance norm."""
    return rsunet_act(width, act, norm="instance", **options)


def rsunet_act_nn(width: Sequence[int] = WIDTH, act: str = "ReLU", **options: Any) -> RSUNet:
    """RSUNet with any activation and nearest-neighbour upsampling. For a network without norms, see `norm=None`."""
    return rsunet_act(width, act, up="nearest", **options)


def rsunet_act_nn_gn(width: Sequence[int] = WIDTH, group: int = 16, act: str = "ReLU", **options: Any) -> RSUNet:
    """RSUNet with any activation, nearest-neighbour upsampling and group norm."""
    return rsunet_act_gn(width, group, act, up="nearest", **options)


def rsunet_2d3d(width: Sequence[int] = WIDTH, depth2d: int = 0, kernel2d: Triple = (1, 3, 3), **options: Any) -> RSUNet:
    """RSUNet with flat kernels in the finest `depth2d` levels, where voxels are most anisotropic."""
    return RSUNet(width, kernels=[kernel2d if level < depth2d else 3 for level in range(len(width))], **options)


def rsunet_2d3d_gn(
    width: Sequence[int] = WIDTH, group: int = 16, depth2d: int = 0, kernel2d: Triple = (1, 3, 3), **options: Any
) -> RSUNet:
    """RSUNet with flat kernels in the finest `depth2d` levels and group norm."""
    return rsunet_2d3d(width, depth2d, kernel2d, norm="group", group=group, **options)


class DynamicRSUNet(RSUNet):
    """RSUNet that is applied repeatedly to its own output: shared convolutions, and separate batch norms for each pass.

    Args:
        width: Channels per level.
        unroll: Number of passes, each with its own batch norms.
        act: The activation.
        options: As in `RSUNet`.
    """

    def __init__(self, width: Sequence[int] = WIDTH, unroll: int = 1, act: str = "ReLU", **options: Any) -> None:
        super().__init__(width, act=act, turns=unroll, layout="norm_act", names=("down", "conv"), **options)
        self.unroll = unroll

    def forward(self, x: Tensor, unroll: int = 1) -> Tensor:
        """Run pass number `unroll`, counted from 1; only its own batch norms get statistics and gradients."""
        return super().forward(x, unroll - 1)


def dynamic_rsunet(width: Sequence[int] = WIDTH, unroll: int = 1, act: str = "ReLU", **options: Any) -> DynamicRSUNet:
    """Create batch norms for each of `unroll` passes."""
    return DynamicRSUNet(width, unroll, act, **options)


def vrunet(
    width: Sequence[int] = WIDTH,
    mode: str = "trilinear",
    scale_factor: Triple = (1, 2, 2),
    act: str = "ReLU",
    **options: Any,
) -> RSUNet:
    """RSUNet with valid convolutions and cropped skips: with four levels, 48x148x148 voxels give 20x60x60."""
    factors = [scale_factor] * (len(width) - 1)
    return rsunet_act(width, act, valid=True, up=mode, factors=factors, **options)


def VRUNet(width: Sequence[int] = WIDTH, mode: str = "trilinear", **options: Any) -> RSUNet:
    """`vrunet` under its public name; the second argument is the upsampling mode."""
    return vrunet(width, mode, **options)


def RUNet(width: Sequence[int] = WIDTH, **options: Any) -> RSUNet:
    """RSUNet whose levels hold the layers of each block directly, without a child module in between."""
    return RSUNet(width, names=(), **options)
