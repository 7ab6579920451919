"""The U-Net of the CNNectome and of DaCapo: concatenated skips, any factors and kernels, several decoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

from torch import Tensor, nn

from deepem.models.cnnectome.blocks import AttentionBlockModule, ConvPass, Downsample, require_axes
from deepem.models.cnnectome.length import middle
from deepem.models.cnnectome.settings import (
    Equivariant,
    Kernel,
    Kernels,
    Padding,
    Pooling,
    choice_of,
    factors_of,
    flags_of,
    kernels_of,
)
from deepem.models.cnnectome.sizes import ShapeError, Sizes, taken
from deepem.models.cnnectome.upsample import Upsample
from deepem.utils.errors import InputError


class CNNectomeUNetModule(nn.Module):
    """U-Net in two, three or four dimensions (Heinrich et al. 2018, arXiv:1805.02718; Funke et al. 2019).

        conv pass --------------- crop [, attention] --- cat --- conv pass
            | pool                                        ^ upsample, crop to a whole number of poolings
            conv pass ------------------------------------'

    Maps may have a length axis, (N, C, L, Z, Y, X). A kernel of four numbers (l, z, y, x) convolves along it; a kernel
    of three numbers is applied to each frame. The axis is dropped once valid convolutions have reduced it to 1.

    Args:
        in_channels: Channels of the input.
        num_fmaps: Channels of the finest level.
        fmap_inc_factor: Factor by which channels grow from level to level.
        downsample_factors: Pooling (z, y, x) or (y, x) per level, finest first.
        kernel_size_down: Kernels per level and convolution on the way down, two of 3 by default. There is one list more
            than factors; with as many lists as factors, the last one is used for the lowest level too.
        kernel_size_up: Kernels on the way up, as many lists as factors, finest level first.
        activation: Name of a class of torch.nn, applied after every convolution.
        num_fmaps_out: Channels of the output, num_fmaps by default.
        num_heads: Number of decoders, which share one encoder. With more than one, the result is a list.
        constant_upsample: Upsample by nearest neighbour and a 1x1x1 convolution instead of a transposed convolution.
        padding: 'valid' or 'same'.
        upsample_channel_contraction: Whether upsampling to a level reduces the channels to that level's; one choice, or
            one per level.
        activation_on_upsample: Apply the activation after upsampling too.
        use_attention: Weigh the skips by the coarser maps.
        batch_norm: Apply batch norm after every convolution.
        pooling: 'max' or 'avg'.
        equivariant: Crop upsampled maps so that the output does not depend on where the patch begins: always (True),
            only in evaluation mode ('eval'), or never (False). The crop costs voxels of the output.

    Attributes:
        num_levels: Number of levels, one more than poolings.
        out_channels: Channels of the output.
        dims: Number of spatial axes.
        l_conv: Passes of convolutions on the way down, finest level first.
        l_down: Poolings.
        r_up: For each head and level, the upsampling, which also crops the skip.
        attention: For each head and level, the attention gate of the skip; None without attention.
        r_conv: For each head and level, the convolution pass on the way up.
        sizes: Which sizes fit.
    """

    def __init__(
        self,
        in_channels: int,
        num_fmaps: int,
        fmap_inc_factor: int,
        downsample_factors: Sequence[Kernel],
        kernel_size_down: Kernels | None = None,
        kernel_size_up: Kernels | None = None,
        activation: str = "ReLU",
        num_fmaps_out: int | None = None,
        num_heads: int = 1,
        constant_upsample: bool = False,
        padding: Padding = "valid",
        upsample_channel_contraction: bool | Sequence[bool] = False,
        activation_on_upsample: bool = False,
        use_attention: bool = False,
        batch_norm: bool = True,
        pooling: Pooling = "max",
        equivariant: Equivariant = True,
    ) -> None:
        super().__init__()
        self.sizes = sizes_of(downsample_factors, kernel_size_down, kernel_size_up, padding, equivariant)
        if min(in_channels, num_fmaps, fmap_inc_factor, num_heads, num_fmaps_out or 1) < 1:
            numbers = f"{in_channels}, {num_fmaps}, {fmap_inc_factor}, {num_heads}, {num_fmaps_out}"
            raise InputError("in_channels, num_fmaps, fmap_inc_factor, num_heads, num_fmaps_out", numbers, "1 or more")
        self.downsample_factors = list(self.sizes.factors)
        self.kernel_size_down = [list(level) for level in self.sizes.down]
        self.kernel_size_up = [list(level) for level in self.sizes.up]
        self.dims, self.num_levels = len(self.downsample_factors[0]), len(self.kernel_size_down)
        self.in_channels, self.out_channels = in_channels, num_fmaps_out or num_fmaps
        self.num_fmaps, self.fmap_inc_factor, self.num_heads = num_fmaps, fmap_inc_factor, num_heads
        self.num_fmaps_out, self.activation, self.padding = num_fmaps_out, activation, padding
        self.constant_upsample, self.activation_on_upsample = constant_upsample, activation_on_upsample
        self.upsample_channel_contraction = upsample_channel_contraction
        self.use_attention, self.batch_norm = use_attention, batch_norm
        self.pooling, self.equivariant = pooling, equivariant
        self._build()

    def _build(self) -> None:
        levels = range(self.num_levels - 1)
        contract = flags_of(self.upsample_channel_contraction, len(levels), "upsample_channel_contraction")
        fmaps = [self.num_fmaps * self.fmap_inc_factor**level for level in range(self.num_levels)]
        raised = [fmaps[d] if contract[d] else fmaps[d + 1] for d in levels]
        out = [self.out_channels, *fmaps[1:]]

        def left(d: int) -> ConvPass:
            into = fmaps[d - 1] if d else self.in_channels
            return self._pass(into, fmaps[d], self.kernel_size_down[d])

        def upsample(d: int) -> Upsample:
            return Upsample(
                self.downsample_factors[d],
                "nearest" if self.constant_upsample else "transposed_conv",
                fmaps[d + 1],
                raised[d],
                [prod(f[axis] for f in self.downsample_factors[d:]) for axis in range(self.dims)],
                self.kernel_size_up[d],
                self.activation if self.activation_on_upsample else None,
                equivariant=self.equivariant,
                centred=self.equivariant == "eval" and d > 0,
            )

        def attention(d: int) -> AttentionBlockModule:
            inner = self.num_fmaps_out if self.num_fmaps_out is not None and d == 0 else raised[d]
            factor = self.downsample_factors[d]
            return AttentionBlockModule(fmaps[d + 1], fmaps[d], inner, self.dims, factor, self.batch_norm)

        def right(d: int) -> ConvPass:
            return self._pass(fmaps[d] + raised[d], out[d], self.kernel_size_up[d])

        self.l_conv = nn.ModuleList(map(left, range(self.num_levels)))
        self.l_down = nn.ModuleList(Downsample(f, self.pooling) for f in self.downsample_factors)
        self.r_up = self._heads(upsample)
        self.attention = self._heads(attention) if self.use_attention else None
        self.r_conv = self._heads(right)

    def _pass(self, into: int, out: int, kernels: Sequence[Kernel]) -> ConvPass:
        return ConvPass(into, out, kernels, self.activation, self.padding, self.batch_norm)

    def _heads(self, make: Callable[[int], nn.Module]) -> nn.ModuleList:
        """Build one module per head and level, finest level first."""
        levels = range(self.num_levels - 1)
        return nn.ModuleList(nn.ModuleList(map(make, levels)) for _ in range(self.num_heads))

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(N, in_channels, [L,] [Z,] Y, X) -> (N, out_channels, ...); a list with one per head for several.

        Raises:
            ShapeError: the size cannot be pooled evenly or is too small; the error names the nearest sizes that fit.
        """
        return self.rec_forward(self.num_levels - 1, x)

    def rec_forward(self, level: int, f_in: Tensor) -> Tensor | list[Tensor]:
        """Run the network from a level down; levels count from the bottom, and num_levels - 1 is the whole network.

        Raises:
            ShapeError: the number of axes or channels does not match the level, or the size does not fit.
        """
        if not 0 <= level < self.num_levels:
            raise InputError("level", level, f"0 to {self.num_levels - 1}")
        depth = self.num_levels - 1 - level
        self._check(depth, f_in)
        outputs = self._below(depth, f_in)
        return outputs if self.num_heads > 1 else outputs[0]

    def _check(self, depth: int, x: Tensor) -> None:
        """Raise if the input does not fit the network from a level down, before anything is computed."""
        where = "network input" if depth == 0 else f"input of level {self.num_levels - 1 - depth}"
        require_axes(x, self.dims, where)
        wants = self.num_fmaps * self.fmap_inc_factor ** (depth - 1) if depth else self.in_channels
        if x.shape[1] != wants:
            top = f"; level {self.num_levels - 1} takes {self.in_channels}" if depth else ""
            raise ShapeError(where, f"{x.shape[1]} channels", f"{wants}{top}")
        part = self.sizes.below(depth)
        part.output_size(x.shape[-self.dims :], where, training=self.training)
        length = int(x.shape[2]) if x.dim() > self.dims + 2 else 1
        if part.length(length) is None:
            least = next(n for n in range(length, 10**6) if part.length(n))
            raise ShapeError(where, f"a length of {length}", f"{least} or more")

    def _below(self, depth: int, x: Tensor) -> list[Tensor]:
        left: Tensor = self.l_conv[depth](x)
        if depth == self.num_levels - 1:
            return [left] * self.num_heads
        rising = self._below(depth + 1, self.l_down[depth](left))
        return [self._rise(head, depth, left, coarse) for head, coarse in enumerate(rising)]

    def _rise(self, head: int, depth: int, skip: Tensor, coarse: Tensor) -> Tensor:
        """Run one level of the way up in one head."""
        if self.attention is not None:
            skip = self.attention[head][depth](coarse, middle(skip, coarse))  # type: ignore[index]
        return self.r_conv[head][depth](self.r_up[head][depth](coarse, skip))  # type: ignore[index, no-any-return]

    def extra_repr(self) -> str:
        """Return the settings as keyword arguments."""
        names = (
            *("in_channels", "num_fmaps", "num_fmaps_out", "fmap_inc_factor", "kernel_size_down", "kernel_size_up"),
            *("downsample_factors", "constant_upsample", "padding", "activation_on_upsample"),
            *("upsample_channel_contraction", "use_attention"),
        )
        return "\n".join(f"{name}={getattr(self, name)!r}," for name in names)


def sizes_of(
    downsample_factors: Sequence[Kernel],
    kernel_size_down: Kernels | None = None,
    kernel_size_up: Kernels | None = None,
    padding: str = "valid",
    equivariant: Equivariant = True,
) -> Sizes:
    """Sizes of a network with these settings.

    Raises:
        InputError: settings contradict each other.
    """
    choice_of(padding, ("valid", "same"), "padding")
    choice_of(equivariant, (True, False, "eval"), "equivariant")
    factors = factors_of(downsample_factors)
    levels, dims = len(factors), len(factors[0])
    down = kernels_of(kernel_size_down, dims, levels + 1, "kernel_size_down", bottom=True)
    up = kernels_of(kernel_size_up, dims, levels, "kernel_size_up")
    for level in range(1, levels):
        for axis in range(-dims, 0):
            period = prod(f[axis] for f in factors[level:])
            if equivariant == "eval" and period % 2 == 0 and taken(up[level], axis) % 2:
                wants = "odd kernels, or equivariant True or False: the crop would move maps by half a voxel"
                raise InputError("kernel_size_up", f"{up[level]} at level {level}", wants)
    return Sizes(tuple(factors), tuple(map(tuple, down)), tuple(map(tuple, up)), padding == "same", equivariant)
