"""Every network of the EMVision family, by its public name; all map feature maps to feature maps.

Each name in `__all__` is called with the widths of the levels and gives a module. Default widths are 16 32 64 128 256
512; `group` counts channels per group. Keywords not listed go to `RSUNet`, and from there to the activation.
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
    """Pooled by 2 along z as well, for isotropic voxels."""
    return RSUNet(width, factors=[(2, 2, 2)] * (len(width) - 1), **options)


def rsunet_gn(width: Sequence[int] = WIDTH, group: int = 16, **options: Any) -> RSUNet:
    """Group norm."""
    return RSUNet(width, norm="group", group=group, **options)


def rsunet_v3(width: Sequence[int] = WIDTH, **options: Any) -> RSUNet:
    """Norm and convolution side by side in the state dict, and no norm at the end."""
    return RSUNet(width, layout="", final=False, **options)


def rsunet_act(width: Sequence[int] = WIDTH, act: str = "ReLU", **options: Any) -> RSUNet:
    """Any activation."""
    return RSUNet(width, act=act, layout="norm_act", **options)


def rsunet_act_gn(width: Sequence[int] = WIDTH, group: int = 16, act: str = "ReLU", **options: Any) -> RSUNet:
    """Any activation, group norm."""
    return rsunet_act(width, act, norm="group", group=group, **options)


def rsunet_act_in(width: Sequence[int] = WIDTH, act: str = "ReLU", **options: Any) -> RSUNet:
    """Any activation, instance norm."""
    return rsunet_act(width, act, norm="instance", **options)


def rsunet_act_nn(width: Sequence[int] = WIDTH, act: str = "ReLU", **options: Any) -> RSUNet:
    """Any activation, upsampled by nearest neighbour. For a network without norms, see `norm=None`."""
    return rsunet_act(width, act, up="nearest", **options)


def rsunet_act_nn_gn(width: Sequence[int] = WIDTH, group: int = 16, act: str = "ReLU", **options: Any) -> RSUNet:
    """Any activation, upsampled by nearest neighbour, group norm."""
    return rsunet_act_gn(width, group, act, up="nearest", **options)


def rsunet_2d3d(width: Sequence[int] = WIDTH, depth2d: int = 0, kernel2d: Triple = (1, 3, 3), **options: Any) -> RSUNet:
    """Flat kernels in the finest `depth2d` levels, where voxels are most anisotropic."""
    return RSUNet(width, kernels=[kernel2d if level < depth2d else 3 for level in range(len(width))], **options)


def rsunet_2d3d_gn(
    width: Sequence[int] = WIDTH, group: int = 16, depth2d: int = 0, kernel2d: Triple = (1, 3, 3), **options: Any
) -> RSUNet:
    """Flat kernels in the finest `depth2d` levels, group norm."""
    return rsunet_2d3d(width, depth2d, kernel2d, norm="group", group=group, **options)


class DynamicRSUNet(RSUNet):
    """Made to be applied again and again to its own output: one set of convolutions, its own batch norms per pass.

    Args:
        width: Channels per level.
        unroll: Number of passes that it has batch norms for.
        act: The activation.
        options: As of `RSUNet`.
    """

    def __init__(self, width: Sequence[int] = WIDTH, unroll: int = 1, act: str = "ReLU", **options: Any) -> None:
        super().__init__(width, act=act, turns=unroll, layout="norm_act", names=("down", "conv"), **options)
        self.unroll = unroll

    def forward(self, x: Tensor, unroll: int = 1) -> Tensor:
        """Pass number `unroll`, counted from 1: only its batch norms get statistics and gradients."""
        return super().forward(x, unroll - 1)


def dynamic_rsunet(width: Sequence[int] = WIDTH, unroll: int = 1, act: str = "ReLU", **options: Any) -> DynamicRSUNet:
    """Batch norms for each of `unroll` passes."""
    return DynamicRSUNet(width, unroll, act, **options)


def vrunet(
    width: Sequence[int] = WIDTH,
    mode: str = "trilinear",
    scale_factor: Triple = (1, 2, 2),
    act: str = "ReLU",
    **options: Any,
) -> RSUNet:
    """Valid convolutions and cropped skips: 48x148x148 voxels give 20x60x60 with four widths."""
    factors = [scale_factor] * (len(width) - 1)
    return rsunet_act(width, act, valid=True, up=mode, factors=factors, **options)


def VRUNet(width: Sequence[int] = WIDTH, mode: str = "trilinear", **options: Any) -> RSUNet:
    """The same."""
    return vrunet(width, mode, **options)


def RUNet(width: Sequence[int] = WIDTH, **options: Any) -> RSUNet:
    """The layers of each block stand in the level itself, without a child that holds them."""
    return RSUNet(width, names=(), **options)
