"""The U-Net of dacapo and the CNNectome (Heinrich et al. 2018, arXiv:1805.02718): concatenated skips, any factors.

    conv pass --------------- crop [, attention] --- cat --- conv pass
        | max pool                                    ^ upsample, crop to a whole number of poolings
        conv pass ------------------------------------'

After each upsampling the map is cropped such that what its convolutions leave is a multiple of all poolings from its
level down. Then an output voxel depends on its surroundings alone, not on where the patch began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.emvision.sizes import CroppedShape
from deepem.models.layers import Model, Spec
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

Size = tuple[int, ...]
Kernels = Sequence[Sequence[Sequence[int]]]
"""Kernel sizes per level, per convolution, finest level first."""

CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
ZFACTOR, XYFACTOR = (1, 1, 3), (2, 2, 2)
LINEAR = {2: "bilinear", 3: "trilinear"}


def _crop(x: Tensor, size: Size) -> Tensor:
    """View of the centre."""
    for axis, (have, keep) in enumerate(zip(x.shape[2:], size, strict=True), 2):
        x = x.narrow(axis, (have - keep) // 2, keep)
    return x


def _lost(kernels: Sequence[Sequence[int]], axis: int) -> int:
    """Voxels that a row of valid convolutions takes from one axis."""
    return sum(kernel[axis] - 1 for kernel in kernels)


class ConvPass(nn.Module):
    """Convolutions with bias, each followed by batch norm, if any, and activation, if any."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernels: Sequence[Sequence[int]],
        activation: str | None,
        padding: str,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for kernel in kernels:
            dims = len(kernel)
            steps.append(CONV[dims](in_channels, out_channels, tuple(kernel), padding=padding))
            if batch_norm:
                steps.append(NORM[dims](out_channels))
            if activation is not None:
                steps.append(getattr(nn, activation)())
            in_channels = out_channels
        self.conv_pass = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) through all convolutions."""
        return self.conv_pass(x)  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Upsampling, cropped to keep the network translation equivariant, after the skip's channels."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        factor: Sequence[int],
        constant: bool,
        activation: str | None,
        period: Sequence[int],
        kernels: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        dims = len(factor)
        if constant:
            mix = CONV[dims](in_channels, out_channels, 1)
            steps = [nn.Upsample(scale_factor=tuple(map(float, factor)), mode="nearest"), mix]
        else:
            steps = [TRANSPOSED[dims](in_channels, out_channels, tuple(factor), stride=tuple(factor))]
        if activation is not None:
            steps.append(getattr(nn, activation)())
        self.up: nn.Module = nn.Sequential(*steps) if len(steps) > 1 else steps[0]
        self.period = tuple(period)
        self.lost = tuple(_lost(kernels, axis) for axis in range(dims))

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        """Channels of the cropped skip, then those of the upsampled map."""
        x = self.up(x)
        kept = tuple((n - c) // p * p + c for n, c, p in zip(x.shape[2:], self.lost, self.period, strict=True))
        return torch.cat([_crop(skip, kept), _crop(x, kept)], 1)


class Attention(nn.Module):
    """The skip weighted by its likeness to the coarser map (Oktay et al. 2018, arXiv:1804.03999)."""

    def __init__(self, gate: int, skip: int, inner: int, factor: Sequence[int], batch_norm: bool) -> None:
        super().__init__()
        dims = len(factor)
        ones = [(1,) * dims] * 2
        self.W_g = ConvPass(gate, inner, ones, None, "same", batch_norm)
        pool = POOL[dims](tuple(factor))
        self.W_x = nn.Sequential(ConvPass(skip, inner, ones, None, "same", batch_norm), pool)
        self.psi = ConvPass(inner, 1, ones, "Sigmoid", "same", batch_norm)
        self.up = nn.Upsample(scale_factor=tuple(map(float, factor)), mode=LINEAR[dims], align_corners=True)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """The gate, smaller for want of padding, lies in the middle of zeros, an odd voxel in front."""
        g, x = self.W_g(gate), self.W_x(skip)
        pads: list[int] = []
        for have, want in reversed(list(zip(g.shape[2:], x.shape[2:], strict=True))):
            pads += [want - have - (want - have) // 2, (want - have) // 2]
        weight: Tensor = self.up(self.psi(F.relu(F.pad(g, pads) + x)))
        return skip * weight


class CNNectomeUNet(nn.Module):
    """U-Net in two or three dimensions.

    Args:
        in_channels: Channels of the input.
        num_fmaps: Channels of the finest level.
        fmap_inc_factor: Channels are multiplied by it from level to level.
        downsample_factors: Pooling per level, finest first; their length decides between 2-d and 3-d.
        kernel_size_down: Kernels per level and convolution on the way down, two of 3 by default.
        kernel_size_up: The same on the way up, one level fewer.
        activation: Name of a class of torch.nn, applied after every convolution.
        num_fmaps_out: Channels of the finest level's way up, num_fmaps by default.
        num_heads: Ways up; they share the way down. More than one: the result is a list.
        constant_upsample: Nearest neighbour and 1x1x1 convolution in place of a transposed convolution.
        padding: 'valid' or 'same'.
        upsample_channel_contraction: Whether upsampling to each level reduces the channels to that level's.
        activation_on_upsample: Activation after upsampling, too.
        use_attention: Weigh the skips.
        batch_norm: After every convolution.

    Attributes:
        width: Channels of input and output, as `deepem.models.layers.Model` asks for them.
        shape: Which patch sizes fit.
    """

    supervisable = False

    def __init__(
        self,
        in_channels: int,
        num_fmaps: int,
        fmap_inc_factor: int,
        downsample_factors: Sequence[Sequence[int]],
        kernel_size_down: Kernels | None = None,
        kernel_size_up: Kernels | None = None,
        activation: str = "ReLU",
        num_fmaps_out: int | None = None,
        num_heads: int = 1,
        constant_upsample: bool = False,
        padding: Literal["valid", "same"] = "valid",
        upsample_channel_contraction: bool | Sequence[bool] = False,
        activation_on_upsample: bool = False,
        use_attention: bool = False,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        factors = [tuple(f) for f in downsample_factors]
        levels, n = len(factors), len(factors[0]) if factors else 0
        if n not in POOL or any(len(f) != n for f in factors):
            raise InputError("downsample_factors", factors, "factors of 2 or 3 axes, the same number for each pooling")
        down = kernel_size_down or [[(3,) * n, (3,) * n]] * (levels + 1)
        up = kernel_size_up or [[(3,) * n, (3,) * n]] * levels
        contract = upsample_channel_contraction
        contract = [contract] * levels if isinstance(contract, bool) else contract
        fmaps = [num_fmaps * fmap_inc_factor**d for d in range(levels + 1)]
        raised = [fmaps[d] if contract[d] else fmaps[d + 1] for d in range(levels)]
        out = [num_fmaps_out or num_fmaps, *fmaps[1:]]
        late = activation if activation_on_upsample else None
        self.width = (in_channels, *fmaps[1:])
        self.shape = cropped_shape(factors, down, up, padding)
        self.num_heads = num_heads

        def heads(make: Callable[[int], nn.Module]) -> nn.ModuleList:
            """A way up per head, each with a module per level, finest first."""
            return nn.ModuleList(nn.ModuleList(map(make, range(levels))) for _ in range(num_heads))

        def upsample(d: int) -> Upsample:
            period = [prod(f[a] for f in factors[d:]) for a in range(n)]
            return Upsample(fmaps[d + 1], raised[d], factors[d], constant_upsample, late, period, up[d])

        def attention(d: int) -> Attention:
            inner = num_fmaps_out if num_fmaps_out is not None and d == 0 else raised[d]
            return Attention(fmaps[d + 1], fmaps[d], inner, factors[d], batch_norm)

        def right(d: int) -> ConvPass:
            return ConvPass(fmaps[d] + raised[d], out[d], up[d], activation, padding, batch_norm)

        self.l_conv = nn.ModuleList(
            ConvPass(fine, coarse, kernels, activation, padding, batch_norm)
            for fine, coarse, kernels in zip([in_channels, *fmaps], fmaps, down, strict=False)
        )
        self.l_down = nn.ModuleList(POOL[n](f) for f in factors)
        self.r_up = heads(upsample)
        self.attention = heads(attention) if use_attention else None
        self.r_conv = heads(right)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(N, in_channels, [Z,] Y, X) -> (N, num_fmaps_out, ...), smaller; a list of them for several heads.

        Raises:
            InputError: a size that the poolings do not fit, or too small a one.
        """
        self.shape.output_size((*(1,) * (5 - x.dim()), *x.shape[2:]), "network input")
        skips = []
        for left, pool in zip(self.l_conv, self.l_down, strict=False):
            skips.append(left(x))
            x = pool(skips[-1])
        bottom = self.l_conv[-1](x)
        rising = [self._rise(head, skips, bottom) for head in range(self.num_heads)]
        return rising if self.num_heads > 1 else rising[0]

    def _rise(self, head: int, skips: Sequence[Tensor], x: Tensor) -> Tensor:
        for d in reversed(range(len(skips))):
            skip = skips[d] if self.attention is None else self.attention[head][d](skips[d], x)  # type: ignore[index]
            x = self.r_conv[head][d](self.r_up[head][d](skip, x))  # type: ignore[index]
        return x


def cropped_shape(factors: Sequence[Sequence[int]], down: Kernels, up: Kernels, padding: str = "valid") -> CroppedShape:
    """Sizes of a network with these poolings and kernels; two axes are taken for y and x."""

    def zyx(values: Sequence[int], z: int) -> Vec3:
        return vec3((*(z,) * (3 - len(values)), *values))

    def lost(kernels: Kernels) -> tuple[Vec3, ...]:
        return tuple(zyx([_lost(level, a) for a in range(len(level[0]))], 0) for level in kernels)

    return CroppedShape(tuple(zyx(f, 1) for f in factors), lost(down), lost(up), padded=padding == "same")


def _factors(zfactor: Sequence[int], xyfactor: Sequence[int]) -> list[Vec3]:
    if len(zfactor) != len(xyfactor) or not zfactor or min(*zfactor, *xyfactor) < 1:
        raise InputError("--zfactor", " ".join(map(str, zfactor)), f"one per --xyfactor, {len(xyfactor)} in all")
    return [(z, xy, xy) for z, xy in zip(zfactor, xyfactor, strict=True)]


def output_size(
    input_size: Vec3,
    *,
    zfactor: Sequence[int] | None = None,
    xyfactor: Sequence[int] | None = None,
    padding: str = "valid",
    **_: object,
) -> Vec3:
    """What is left of a patch; InputError with the nearest sizes if the network cannot pool it."""
    factors = _factors(zfactor or ZFACTOR, xyfactor or XYFACTOR)
    kernels = [[(3, 3, 3)] * 2] * (len(factors) + 1)
    return cropped_shape(factors, kernels, kernels[1:], padding).output_size(input_size)


def create_model(
    *,
    in_spec: Spec,
    out_spec: Spec,
    cropsz: tuple[float, float, float] | None = None,
    num_fmaps: int = 12,
    fmap_inc_factor: int = 5,
    zfactor: list[int] | None = None,
    xyfactor: list[int] | None = None,
    padding: Literal["valid", "same"] = "valid",
    constant_upsample: bool = True,
    use_attention: bool = False,
    batch_norm: bool = False,
) -> Model:
    """The network between input convolution and heads, with the choices of dacapo's configuration.

    Args:
        in_spec: The input.
        out_spec: The heads.
        cropsz: Fraction of the patch that the output keeps.
        num_fmaps: Channels of the finest level.
        fmap_inc_factor: Channels are multiplied by it from level to level.
        zfactor: z pooling factor per level, 1 1 3 by default.
        xyfactor: y and x pooling factor per level, 2 2 2 by default.
        padding: Convolutions without padding shrink the patch.
        constant_upsample: Nearest neighbour in place of transposed convolution.
        use_attention: Weigh the skips.
        batch_norm: After every convolution.
    """
    factors = _factors(zfactor or ZFACTOR, xyfactor or XYFACTOR)
    core = CNNectomeUNet(
        num_fmaps,
        num_fmaps,
        fmap_inc_factor,
        factors,
        constant_upsample=constant_upsample,
        padding=padding,
        upsample_channel_contraction=[False] + [True] * (len(factors) - 1),
        activation_on_upsample=True,
        use_attention=use_attention,
        batch_norm=batch_norm,
    )
    return Model(core, in_spec, out_spec, cropsz=cropsz)
