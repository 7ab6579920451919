"""Building blocks of a CNNectome U-Net: convolution passes, pooling, attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.cnnectome.length import Conv4d, dropped, has_length, per_frame
from deepem.models.cnnectome.settings import Kernel, Pooling, Size, activation_of, choice_of, size_of
from deepem.models.cnnectome.sizes import ShapeError
from deepem.utils.errors import InputError

CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d, 4: Conv4d}
NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d, 4: nn.BatchNorm3d}
POOL: dict[tuple[int, str], Any] = {
    (2, "max"): nn.MaxPool2d,
    (3, "max"): nn.MaxPool3d,
    (2, "avg"): nn.AvgPool2d,
    (3, "avg"): nn.AvgPool3d,
}
LINEAR = {2: "bilinear", 3: "trilinear"}


def require_axes(x: Tensor, dims: int, where: str) -> None:
    """Raise unless maps are (N, C, ...) with this many spatial axes, or with one more in three dimensions.

    Raises:
        ShapeError: the maps have another number of axes.
    """
    if x.dim() != dims + 2 and not (dims == 3 and has_length(x)):
        wants = "(N, C, [L,] Z, Y, X)" if dims == 3 else "(N, C, Y, X)"
        raise ShapeError(where, f"{x.dim()} axes {tuple(x.shape)}", f"{wants}, for a network of {dims} dimensions")


class ConvPass(nn.Module):
    """Convolutions with bias, each followed by optional batch norm and activation.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of every convolution.
        kernel_sizes: One kernel per convolution, ([l,] z, y, x) or (y, x); a number is used for all three axes.
        activation: Name of a class of torch.nn, or None.
        padding: 'valid' or 'same'.
        batch_norm: Apply batch norm after each convolution.

    Attributes:
        dims: Largest number of axes of any kernel.
        conv_pass: The layers.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: Sequence[Kernel],
        activation: str | None,
        padding: str = "valid",
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        choice_of(padding, ("valid", "same"), "padding")
        flat = any(not isinstance(k, int) and len(k) == 2 for k in kernel_sizes)
        kernels = [size_of(k, 2 if flat else 3, "kernel_sizes", length=True) for k in kernel_sizes]
        if not kernels:
            raise InputError("kernel_sizes", kernel_sizes, "one kernel or more")
        steps: list[nn.Module] = []
        for kernel in kernels:
            steps.append(CONV[len(kernel)](in_channels, out_channels, kernel, padding=padding))
            if batch_norm:
                steps.append(NORM[len(kernel)](out_channels))
            if activation is not None:
                steps.append(activation_of(activation))
            in_channels = out_channels
        self.dims = max(map(len, kernels))
        self.conv_pass = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, [L,] ...) through all convolutions; the length axis is dropped once it is 1.

        Raises:
            RuntimeError: the maps have the wrong number of axes or channels, or are too small.
        """
        x = dropped(x)
        if not has_length(x):
            return self.conv_pass(x)  # type: ignore[no-any-return]
        for step in self.conv_pass:
            x = dropped(step(x)) if isinstance(step, Conv4d) else per_frame(step, x)
        return x


class Downsample(nn.Module):
    """Pooling that requires sizes to be multiples of the factor.

    Args:
        downsample_factor: (z, y, x) or (y, x).
        pooling: 'max' or 'avg'.

    Attributes:
        dims: Number of axes of the factor.
        downsample_factor: As given.
        down: The pooling.
    """

    def __init__(self, downsample_factor: Kernel, pooling: Pooling = "max") -> None:
        super().__init__()
        choice_of(pooling, ("max", "avg"), "pooling")
        self.dims = 3 if isinstance(downsample_factor, int) else len(downsample_factor)
        if self.dims not in (2, 3):
            raise InputError("downsample_factor", downsample_factor, "a factor of 2 or 3 axes")
        self.downsample_factor: Size = size_of(downsample_factor, self.dims, "downsample_factor")
        self.down: nn.Module = POOL[self.dims, pooling](self.downsample_factor)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, [L,] ...) -> the same, smaller.

        Raises:
            ShapeError: the maps have the wrong number of axes, or sizes that are no multiples of the factor; the error
                names the nearest multiples.
        """
        require_axes(x, self.dims, "pooling")
        sizes = [int(n) for n in x.shape[-self.dims :]]
        if any(n % f for n, f in zip(sizes, self.downsample_factor, strict=True)):
            near = [
                f"{n}" if n % f == 0 else " or ".join(str(m) for m in (n // f * f, n // f * f + f) if m)
                for n, f in zip(sizes, self.downsample_factor, strict=True)
            ]
            raise ShapeError("pooling", sizes, f"multiples of {self.downsample_factor}, the nearest {', '.join(near)}")
        return per_frame(self.down, x)


class AttentionBlockModule(nn.Module):
    """Attention gate: weigh skip features by their similarity to a coarser map (Oktay et al. 2018, arXiv:1804.03999).

        [g] -- W_g -- [+] -- relu -- psi -- up -- [*] -- [output]
                       |                           |
        [x] -- W_x ----'                          [x]

    Args:
        F_g: Channels of the gate.
        F_l: Channels of the skip.
        F_int: Channels of the sum of the two.
        dims: Spatial axes, 2 or 3.
        upsample_factor: Factor by which the gate is coarser; None if it is not.
        batch_norm: After each 1x1 convolution.

    Attributes:
        dims: Spatial axes.
        kernel_sizes: Kernel sizes of the convolutions, all 1.
        upsample_factor: As given.
        batch_norm: As given.
        W_g: Convolutions of the gate.
        W_x: Convolutions of the skip, then pooling to the size of the gate.
        psi: Convolutions to one channel, then a sigmoid.
        up: Linear interpolation of the weights to the size of the skip.
        relu: The activation of the sum.
    """

    def __init__(
        self,
        F_g: int,
        F_l: int,
        F_int: int,
        dims: int,
        upsample_factor: Kernel | None = None,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        choice_of(dims, (2, 3), "dims")
        self.dims, self.batch_norm = dims, batch_norm
        self.upsample_factor = upsample_factor
        self.kernel_sizes = [(1,) * dims, (1,) * dims]
        self.W_g = ConvPass(F_g, F_int, self.kernel_sizes, None, "same", batch_norm)
        self.W_x = nn.Sequential(ConvPass(F_l, F_int, self.kernel_sizes, None, "same", batch_norm))
        self.psi = ConvPass(F_int, 1, self.kernel_sizes, "Sigmoid", "same", batch_norm)
        self.up: nn.Module = nn.Identity()
        if upsample_factor is not None:
            factor = size_of(upsample_factor, dims, "upsample_factor")
            self.W_x.append(Downsample(factor))
            self.up = nn.Upsample(scale_factor=tuple(map(float, factor)), mode=LINEAR[dims], align_corners=True)
        self.relu = nn.ReLU(inplace=True)

    def calculate_and_apply_padding(self, smaller_tensor: Tensor, larger_tensor: Tensor) -> Tensor:
        """Pad the smaller maps with zeros around them to the size of the larger ones; an odd voxel goes in front.

        Raises:
            ShapeError: the numbers of axes differ, or a smaller map is larger along some axis.
        """
        if smaller_tensor.dim() != larger_tensor.dim():
            raise ShapeError("attention", f"{smaller_tensor.dim()} and {larger_tensor.dim()} axes", "as many of each")
        pads: list[int] = []
        for have, want in zip(reversed(smaller_tensor.shape[2:]), reversed(larger_tensor.shape[2:]), strict=True):
            if have > want:
                sizes = f"{tuple(smaller_tensor.shape[2:])} in {tuple(larger_tensor.shape[2:])}"
                raise ShapeError("attention", sizes, "a gate that is no larger than the pooled skip")
            pads += [want - have - (want - have) // 2, (want - have) // 2]
        return F.pad(smaller_tensor, pads)

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        """Gate (N, F_g, ...) and skip (N, F_l, ...) -> the weighted skip.

        Raises:
            ShapeError: the numbers of axes differ, or the gate is larger than the pooled skip.
        """
        require_axes(g, self.dims, "attention")
        if g.dim() != x.dim():
            raise ShapeError("attention", f"a gate of {g.dim()} and a skip of {x.dim()} axes", "as many of each")
        skip: Tensor = self.W_x(x)
        gate = self.calculate_and_apply_padding(self.W_g(g), skip)
        return x * per_frame(self.up, self.psi(self.relu(gate + skip)))
