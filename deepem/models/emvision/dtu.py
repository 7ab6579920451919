"""A U-Net of valid convolutions without norm, pooled and upsampled by 3."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from deepem.models.emvision.blocks import Steps, Style, layer
from deepem.models.emvision.sizes import UShape
from deepem.models.emvision.utils import Triple, crop3d, div3, mul3, sum3, triple
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3


class DTU2(nn.Module):
    """Valid U-Net: act - conv with bias, max pooling, transposed convolution, skips cropped and summed.

    Level 0 has one convolution on either way, every other level two. A skip loses half of what the levels below take
    from the map that it is added to.

    Args:
        width: Channels per level, finest first; also those of the input and of the output.
        kszs: Kernel size per level.
        factors: (z, y, x) pooling factor per level, one less.
        act: The activation.

    Attributes:
        skip_crops: Voxels cropped at either end of each axis of the skip, finest level first.
        shape: Which patch sizes fit, and the size of the output.
    """

    def __init__(
        self,
        width: Sequence[int] = (12, 72, 432, 2592),
        kszs: Sequence[Triple] = ((1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)),
        factors: Sequence[Triple] = ((1, 3, 3), (1, 3, 3), (3, 3, 3)),
        act: str = "ReLU",
    ) -> None:
        super().__init__()
        levels = len(width)
        if levels < 1 or len(kszs) < levels or len(factors) < levels - 1:
            raise InputError("--width", " ".join(map(str, width)) or "nothing", f"1 to {len(kszs)} numbers of channels")
        self.width = tuple(width)
        style = Style(norm=None, act=act, layout="", bias=True)
        scales = [triple(f) for f in factors[: levels - 1]]
        loss = [sum3(k, -1) for k in kszs[:levels]]  # what one convolution takes, per level
        lost = [mul3(loss[d], 1 if d == 0 else 2) for d in range(levels)]
        self.shape = UShape(tuple(scales), tuple(lost), tuple(lost[:-1]))
        self.skip_crops = _skip_crops(scales, lost)

        self.iconv = layer(width[0], width[0], kszs[0], style, "valid")
        self.dconvs, self.uconvs = nn.ModuleList(), nn.ModuleList()
        for d, factor in enumerate(scales):
            fine, coarse = width[d : d + 2]
            down = [layer(fine if i == 0 else coarse, coarse, kszs[d + 1], style, "valid") for i in range(2)]
            up = [layer(fine, fine, kszs[d], style, "valid") for _ in range(1 if d == 0 else 2)]
            self.dconvs.append(Steps({"pool": nn.MaxPool3d(factor), "convmod": _numbered(down)}))
            upsample = nn.ConvTranspose3d(coarse, fine, factor, stride=factor)
            self.uconvs.append(nn.ModuleDict({"upsample": upsample, "convmod": _numbered(up)}))

    def forward(self, x: Tensor) -> Tensor:
        """(N, width[0], Z, Y, X) -> (N, width[0], Z', Y', X'), smaller by what the convolutions take.

        Raises:
            InputError: a size that the poolings do not fit, or too small a one.
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


def _skip_crops(factors: Sequence[Vec3], lost: Sequence[Vec3]) -> list[Vec3]:
    """What both ways of the levels below take, in voxels of each level, halved.

    With the default kernels the deepest level takes 4 of its voxels in y, 12 of the level above: 6 at either end.
    """
    crops: list[Vec3] = []
    below = lost[len(factors)]
    for level in reversed(range(len(factors))):
        below = mul3(below, factors[level])
        if any(n % 2 for n in below):
            raise InputError("kszs", f"kernels that take {below} voxels below level {level}", "even numbers of them")
        crops.insert(0, div3(below, 2))
        below = sum3(below, lost[level], lost[level])
    return crops


def _numbered(layers: Sequence[Steps]) -> Steps:
    return Steps({str(i): made for i, made in enumerate(layers)})
