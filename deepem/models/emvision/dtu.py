"""A U-Net of valid convolutions without norm, pooled and upsampled by 3."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from deepem.models.emvision.blocks import Steps, Style, layer
from deepem.models.emvision.sizes import UShape
from deepem.models.emvision.utils import Triple, crop3d, mul3, sum3, triple
from deepem.utils.errors import InputError

WIDTH = (12, 72, 432, 2592)
KERNELS = ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3))
FACTORS = ((1, 3, 3), (1, 3, 3), (3, 3, 3))


def dtu_shape(levels: int, kszs: Sequence[Triple] = KERNELS, factors: Sequence[Triple] = FACTORS) -> UShape:
    """Sizes of a network with this many levels: one convolution on each way of the finest level, two on all others."""
    most = min(len(kszs), len(factors) + 1)
    if not 1 <= levels <= most:
        raise InputError("width", f"{levels} levels", f"1 to {most}, a kernel size for each, a pooling between")
    lost = tuple(mul3(sum3(k, -1), 2 if level else 1) for level, k in enumerate(kszs[:levels]))
    return UShape(tuple(map(triple, factors[: levels - 1])), lost, lost[:-1])


class DTU2(nn.Module):
    """Valid U-Net: act - conv with bias, max pooling, transposed convolution, skips cropped and summed.

    Args:
        width: Channels per level, finest first; also those of the input and of the output.
        kszs: Kernel size per level.
        factors: (z, y, x) pooling factor between levels.
        act: The activation.

    Attributes:
        skip_crops: Voxels cropped at both ends of each axis of the skip, finest level first.
        shape: Which patch sizes fit, and the size of the output.
    """

    supervisable = False

    def __init__(
        self,
        width: Sequence[int] = WIDTH,
        kszs: Sequence[Triple] = KERNELS,
        factors: Sequence[Triple] = FACTORS,
        act: str = "ReLU",
    ) -> None:
        super().__init__()
        self.width = tuple(width)
        self.shape = dtu_shape(len(width), kszs, factors)
        self.skip_crops = self.shape.crops()
        style = Style(norm=None, act=act, layout="", bias=True)

        self.iconv = layer(width[0], width[0], kszs[0], style, "valid")
        self.dconvs, self.uconvs = nn.ModuleList(), nn.ModuleList()
        for d, factor in enumerate(self.shape.factors):
            fine, coarse = width[d : d + 2]
            down = [layer(fine if i == 0 else coarse, coarse, kszs[d + 1], style, "valid") for i in range(2)]
            up = [layer(fine, fine, kszs[d], style, "valid") for _ in range(1 if d == 0 else 2)]
            self.dconvs.append(Steps({"pool": nn.MaxPool3d(factor), "convmod": _numbered(down)}))
            upsample = nn.ConvTranspose3d(coarse, fine, factor, stride=factor)
            self.uconvs.append(nn.ModuleDict({"upsample": upsample, "convmod": _numbered(up)}))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width[0], Z, Y, X) -> (N, width[0], Z', Y', X'), smaller by the voxels that the convolutions remove.

        Raises:
            InputError: the size cannot be pooled evenly or is too small.
        """
        self.shape.output_size(x.shape[-3:], "network input")
        x = self.iconv(x)
        skips = []
        for down in self.dconvs:
            skips.append(x)
            x = down(x)
        for up, crop in reversed(list(zip(self.uconvs, self.skip_crops, strict=True))):
            x = up["convmod"](up["upsample"](x) + crop3d(skips.pop(), crop))  # type: ignore[index]
        return x


def _numbered(layers: Sequence[Steps]) -> Steps:
    return Steps({str(i): made for i, made in enumerate(layers)})
