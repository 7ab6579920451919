"""Upsampling that keeps a CNNectome U-Net translation-equivariant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepem.models.cnnectome.blocks import CONV, require_axes
from deepem.models.cnnectome.length import has_length, middle, per_frame
from deepem.models.cnnectome.settings import Equivariant, Kernel, Size, activation_of, choice_of, size_of
from deepem.models.cnnectome.sizes import ShapeError, kept, taken
from deepem.utils.errors import InputError

TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class Upsample(nn.Module):
    """Upsample maps, crop them if asked for, and concatenate them to the cropped skip.

    Args:
        scale_factor: (z, y, x) or (y, x).
        mode: 'transposed_conv', or 'nearest' followed by a 1x1x1 convolution.
        in_channels: Channels of the input.
        out_channels: Channels after upsampling.
        crop_factor: Crop so that the following convolutions leave a multiple of this; None turns the crop off.
        next_conv_kernel_sizes: Kernels of the following convolutions.
        activation: Name of a class of torch.nn, applied after upsampling.
        equivariant: Whether to crop: True, False, or 'eval' for evaluation mode only.
        centred: Where there is a choice, crop an even number of voxels.

    Attributes:
        crop_factor: As given.
        next_conv_kernel_sizes: As given.
        dims: Number of axes of the factor.
        up: The upsampling layer.
    """

    def __init__(
        self,
        scale_factor: Kernel,
        mode: str = "transposed_conv",
        in_channels: int | None = None,
        out_channels: int | None = None,
        crop_factor: Kernel | None = None,
        next_conv_kernel_sizes: Sequence[Kernel] | None = None,
        activation: str | None = None,
        *,
        equivariant: Equivariant = True,
        centred: bool = False,
    ) -> None:
        super().__init__()
        choice_of(mode, ("transposed_conv", "nearest"), "mode")
        if (crop_factor is None) != (next_conv_kernel_sizes is None):
            raise InputError("crop_factor", crop_factor, "both or neither of crop_factor and next_conv_kernel_sizes")
        if in_channels is None or out_channels is None:
            raise InputError("in_channels, out_channels", f"{in_channels}, {out_channels}", "a number of each")
        self.dims = 3 if isinstance(scale_factor, int) else len(scale_factor)
        if self.dims not in TRANSPOSED:
            raise InputError("scale_factor", scale_factor, "a factor of 2 or 3 axes")
        self.scale_factor: Size = size_of(scale_factor, self.dims, "scale_factor")
        self.crop_factor, self.next_conv_kernel_sizes = crop_factor, next_conv_kernel_sizes
        self.equivariant, self.centred = equivariant, centred
        steps: list[nn.Module]
        if mode == "nearest":
            larger = nn.Upsample(scale_factor=tuple(map(float, self.scale_factor)), mode="nearest")
            steps = [larger, CONV[self.dims](in_channels, out_channels, 1)]
        else:
            steps = [TRANSPOSED[self.dims](in_channels, out_channels, self.scale_factor, stride=self.scale_factor)]
        if activation is not None:
            steps.append(activation_of(activation))
        self.up: nn.Module = nn.Sequential(*steps) if len(steps) > 1 else steps[0]

    def crop_to_factor(self, x: Tensor, factor: Kernel, kernel_sizes: Sequence[Kernel]) -> Tensor:
        """Crop maps to the centre so that convolutions with these kernels leave a multiple of the factor.

        Raises:
            ShapeError: the maps are too small to be cropped.
        """
        require_axes(x, self.dims, "crop_to_factor")
        return self.crop(x, self._kept(x.shape[-self.dims :], factor, kernel_sizes))

    def _kept(self, shape: Sequence[int], factor: Kernel, kernel_sizes: Sequence[Kernel]) -> Size:
        """The size that `crop_to_factor` keeps of maps of this shape."""
        sizes = tuple(int(n) for n in shape)
        periods = size_of(factor, self.dims, "factor")
        kernels = [size_of(k, self.dims, "kernel_sizes", length=True) for k in kernel_sizes]
        lost = [taken(kernels, axis - self.dims) for axis in range(self.dims)]
        keep = tuple(kept(n, c, p, centred=self.centred) for n, c, p in zip(sizes, lost, periods, strict=True))
        cropped = [k != n for k, n in zip(keep, sizes, strict=True)]
        tight = [k <= c for k, c in zip(keep, lost, strict=True)]
        alone = [c and t for c, t in zip(cropped, tight, strict=True)]
        if any(alone) or (self.equivariant is True and any(cropped) and any(tight)):
            least = ", ".join(str(c + p) for c, p in zip(lost, periods, strict=True))
            raise ShapeError("upsampled maps", sizes, f"at least {least}, to be cropped to a multiple of {periods}")
        return keep

    def crop(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """View of the centre of the last axes; `shape` gives their sizes.

        Raises:
            ShapeError: the shape has more axes than the maps, or is larger than they are.
        """
        first = x.dim() - len(shape)
        if first < 2 or any(n < keep for n, keep in zip(x.shape[first:], shape, strict=True)):
            raise ShapeError("crop", tuple(x.shape[2:]), f"maps of {tuple(shape)} or more")
        for axis, keep in enumerate(shape, first):
            x = x.narrow(axis, (x.shape[axis] - keep) // 2, keep)
        return x

    def forward(self, g_out: Tensor, f_left: Tensor | None = None) -> Tensor:
        """Coarse maps (N, in_channels, [L,] ...) -> channels of the cropped skip, if any, then of the upsampled maps.

        If only the skip still has a length axis, its middle frame is used.

        Raises:
            ShapeError: the number of axes is wrong, or the skip is smaller than the upsampled maps.
        """
        require_axes(g_out, self.dims, "upsampling")
        keep: Size = tuple(int(n) * f for n, f in zip(g_out.shape[-self.dims :], self.scale_factor, strict=True))
        crops = self.equivariant is True or (self.equivariant == "eval" and not self.training)
        if crops and self.crop_factor is not None and self.next_conv_kernel_sizes is not None:
            keep = self._kept(keep, self.crop_factor, self.next_conv_kernel_sizes)
        inner = (int(g_out.shape[2]), *keep) if has_length(g_out) else keep
        if f_left is not None:
            f_left = middle(f_left, g_out)
            if f_left.dim() != g_out.dim() or any(n < k for n, k in zip(f_left.shape[2:], inner, strict=True)):
                got = f"a skip of {tuple(f_left.shape[2:])} for coarse maps of {tuple(g_out.shape[2:])}"
                raise ShapeError("upsampling", got, f"a skip of {inner} or more")
        upsampled = self.crop(per_frame(self.up, g_out), keep)
        return upsampled if f_left is None else torch.cat([self.crop(f_left, inner), upsampled], 1)
