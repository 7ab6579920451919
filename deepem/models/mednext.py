"""MedNeXt: a U-Net of ConvNeXt blocks (Roy et al. 2023, arXiv:2303.09975), written from the paper.

::

    block   x - depthwise k^3 - group norm - 1^3 to R times the channels - GELU - 1^3 back - (+) x
    down    the same with a stride in the depthwise convolution, to twice the channels; (+) strided 1^3 of x
    up      the same, transposed, to half the channels; (+) transposed 1^3 of x; then (+) skip

Between 1 input channel and the three channels of `affinity`, at five levels of 32 to 512 channels:

======== ========== ========== ==========
variant  R          kernel 3   kernel 5
======== ========== ========== ==========
small    2 2 2 2 2   5,553,987  5,983,619
base     2 3 4 4 4  10,529,379 10,959,011
======== ========== ========== ==========

As in the paper, the group norm has one group per channel and normalises over the whole patch, so the output at a voxel
depends on everything in the patch. With norm='batch' it does not. The authors' up block pads in front, which shifts
maps by one voxel relative to their skips; here they stay aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from deepem.models.emvision.layers import normalisation
from deepem.models.emvision.recompute import recomputed
from deepem.models.emvision.rsu import u_shape
from deepem.models.emvision.utils import Triple, pad_size, sum3, triple
from deepem.models.entry import model_of, widths
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

WIDTH = (32, 64, 128, 256, 512)
EXPANSION = {"small": (2, 2, 2, 2, 2), "base": (2, 3, 4, 4, 4)}
"""Hidden channels relative to channels, finest level first; coarser levels repeat the last number."""
BLOCKS = 2
"""Number of blocks per level, on each way."""


class Block(nn.Module):
    """Depthwise convolution, norm, expansion, GELU, compression; residual if input and output have the same shape.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        expansion: Hidden channels relative to input channels.
        kernel: Kernel size of the depthwise convolution, (z, y, x), odd.
        norm: "group", with one channel per group, or "batch".
        stride: Lowers the resolution by this factor, (z, y, x), or None.
        rise: Raises the resolution by this factor, (z, y, x), or None.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expansion: int,
        kernel: Triple,
        norm: str = "group",
        stride: Vec3 | None = None,
        rise: Vec3 | None = None,
    ) -> None:
        super().__init__()
        size, padding = triple(kernel), pad_size(kernel, "same")
        self.skip: nn.Module = nn.Identity()
        if rise is not None:
            more = sum3(rise, -1)
            self.depthwise: nn.Module = nn.ConvTranspose3d(
                in_channels, in_channels, size, rise, padding, output_padding=more, groups=in_channels
            )
            self.skip = nn.ConvTranspose3d(in_channels, out_channels, 1, rise, output_padding=more)
        else:
            self.depthwise = nn.Conv3d(in_channels, in_channels, size, stride or 1, padding, groups=in_channels)
            if stride is not None:
                self.skip = nn.Conv3d(in_channels, out_channels, 1, stride)
        self.norm = normalisation(norm, in_channels, 1)
        self.expand = nn.Conv3d(in_channels, expansion * in_channels, 1)
        self.act = nn.GELU()
        self.compress = nn.Conv3d(expansion * in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) -> (N, out_channels, ...)."""
        inner = self.act(self.expand(self.norm(self.depthwise(x))))
        return self.compress(inner).add_(self.skip(x))  # type: ignore[no-any-return]


class MedNeXt(nn.Module):
    """MedNeXt from feature maps of width[0] channels to feature maps of width[0] channels.

    Args:
        width: Channels per level.
        expansion: Hidden channels relative to channels, one number per level.
        kernels: Kernel of the depthwise convolutions, one per level.
        zfactor: z pooling factor per level, 1 by default; along y and x it is 2.
        norm: "group" or "batch".
        checkpointing: Recompute activations within each block in the backward pass, to save memory.

    Attributes:
        shape: Which patch sizes fit.
    """

    supervisable = True

    def __init__(
        self,
        width: Sequence[int] = WIDTH,
        expansion: Sequence[int] = EXPANSION["small"],
        kernels: Sequence[Triple] = (3, 3, 3, 3, 3),
        *,
        zfactor: Sequence[int] | None = None,
        norm: str = "group",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.width = tuple(width)
        self.shape = u_shape(len(width) - 1, zfactor)
        self.checkpointing = checkpointing
        levels = list(zip(width, expansion, kernels, strict=True))

        def blocks(level: int) -> nn.Sequential:
            channels, ratio, kernel = levels[level]
            return nn.Sequential(*(Block(channels, channels, ratio, kernel, norm) for _ in range(BLOCKS)))

        self.enc = nn.ModuleList(blocks(level) for level in range(len(levels)))
        self.down = nn.ModuleList(
            Block(fine, coarse, ratio, kernel, norm, stride=factor)
            for (fine, _, _), (coarse, ratio, kernel), factor in zip(
                levels, levels[1:], self.shape.factors, strict=False
            )
        )
        self.up = nn.ModuleList(
            Block(coarse, fine, ratio, kernel, norm, rise=factor)
            for (fine, ratio, kernel), (coarse, _, _), factor in zip(
                levels, levels[1:], self.shape.factors, strict=False
            )
        )
        self.dec = nn.ModuleList(blocks(level) for level in range(len(levels) - 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width[0], Z, Y, X) -> the same shape."""
        return self.maps(x)[0]

    def maps(self, x: Tensor, coarsest: int = 0) -> list[Tensor]:
        """Return the result, and the maps of the `coarsest` levels below it."""
        skips = []
        for left, down in zip(self.enc, self.down, strict=False):
            x = self._through(left, x)
            skips.append(x)
            x = self._run(down, x)
        x = self._through(self.enc[-1], x)
        rising = [x]
        for up, right, skip in reversed(list(zip(self.up, self.dec, skips, strict=True))):
            x = self._through(right, self._run(up, x) + skip)
            rising.insert(0, x)
        return rising[: coarsest + 1]

    def _through(self, blocks: nn.Module, x: Tensor) -> Tensor:
        for block in blocks.children():
            x = self._run(block, x)
        return x

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.checkpointing and self.training:
            return recomputed(block, x)
        out: Tensor = block(x)
        return out


def output_size(
    input_size: Vec3,
    *,
    depth: int = 5,
    width: Sequence[int] | None = None,
    zfactor: Sequence[int] | None = None,
    **_: object,
) -> Vec3:
    """Return `input_size` if the network can pool it, else raise InputError with the nearest sizes that work."""
    return u_shape(len(widths(depth, width, WIDTH)) - 1, zfactor).output_size(input_size)


def core(
    width: tuple[int, ...],
    *,
    variant: Literal["small", "base"] = "small",
    kernel_size: Literal[3, 5] = 3,
    depth2d: int = 0,
    zfactor: list[int] | None = None,
    norm: Literal["group", "batch"] = "group",
    checkpointing: bool = False,
) -> MedNeXt:
    """Build the network between input convolution and heads.

    Args:
        width: Channels per level.
        variant: The paper's small or base variant, which differ in the hidden channels of the blocks.
        kernel_size: Kernel size of the depthwise convolutions along each axis.
        depth2d: Number of levels with flat kernels, starting at the finest, where voxels are most anisotropic.
        zfactor: z pooling factor per level, 1 by default; 2 2 2 2 as in the paper, for isotropic voxels.
        norm: Normalise each channel over the patch, as in the paper, or use batch norm.
        checkpointing: Save memory in training by computing feature maps twice.
    """
    if variant not in EXPANSION:
        raise InputError("variant", variant, f"one of {', '.join(EXPANSION)}")
    ratios = EXPANSION[variant]
    expansion = [ratios[min(level, len(ratios) - 1)] for level in range(len(width))]
    flat = (1, kernel_size, kernel_size)
    kernels = [flat if level < depth2d else triple(kernel_size) for level in range(len(width))]
    return MedNeXt(width, expansion, kernels, zfactor=zfactor, norm=norm, checkpointing=checkpointing)


create_model = model_of(core, default=WIDTH, levels=5)
