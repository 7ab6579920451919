"""Feature maps with a length axis, (N, C, L, Z, Y, X): 4-D convolutions, and 3-D layers applied per frame."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.cnnectome.sizes import ShapeError


def has_length(x: Tensor) -> bool:
    """Whether a batch of feature maps has a length axis."""
    return x.dim() == 6


def per_frame(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer to (N, C, [L,] ...); frames of a length axis, if there is one, are treated as additional samples.

    Batch norm therefore computes its statistics over all frames of the batch.
    """
    if not has_length(x):
        return layer(x)  # type: ignore[no-any-return]
    return _together(layer(x.movedim(2, 0).flatten(0, 1)), x.shape[2])


def _together(frames: Tensor, length: int) -> Tensor:
    """(L * N, C, Z, Y, X) -> (N, C, L, Z, Y, X), a view."""
    apart: Tensor = frames.unflatten(0, (length, -1))
    return apart.movedim(0, 2)


def dropped(x: Tensor) -> Tensor:
    """Drop the length axis once it is 1."""
    return x.squeeze(2) if has_length(x) and x.shape[2] == 1 else x


def middle(x: Tensor, like: Tensor) -> Tensor:
    """Take the middle frame of maps with a length axis if the other maps have none."""
    return x if has_length(like) or not has_length(x) else x[:, :, (x.shape[2] - 1) // 2]


class Conv4d(nn.Module):
    """A convolution over (L, Z, Y, X): one batched three-dimensional convolution per plane of the kernel.

    Output frame l is the sum over t of conv3d(frame l + t, weight[:, :, t]).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: (l, z, y, x).
        padding: 'valid' or 'same'.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sequence[int], padding: str = "valid") -> None:
        super().__init__()
        self.kernel_size, self.padding = tuple(kernel_size), padding
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *self.kernel_size))
        self.bias = nn.Parameter(torch.empty(out_channels))
        nn.init.kaiming_uniform_(self.weight, a=sqrt(5))  # same initialisation as torch's own convolutions
        bound = 1 / sqrt(in_channels * prod(self.kernel_size))
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, [L,] Z, Y, X) -> (N, out_channels, [L',] ...); maps without a length axis count as one frame.

        Raises:
            ShapeError: there are fewer frames than the kernel is long.
        """
        planes, same = self.kernel_size[0], self.padding == "same"
        if not has_length(x):
            if planes > 1 and not same:
                raise ShapeError("length axis", "one frame", f"{planes} or more: a kernel is {self.kernel_size}")
            return F.conv3d(x, self.weight[:, :, (planes - 1) // 2], self.bias, padding=self.padding)
        if same:
            front = (planes - 1) // 2
            x = F.pad(x, (0, 0, 0, 0, 0, 0, front, planes - 1 - front))
        left = x.shape[2] - planes + 1
        if left < 1:
            raise ShapeError("length axis", f"{x.shape[2]} frames", f"{planes} or more: a kernel is {self.kernel_size}")
        frames = x.movedim(2, 0).contiguous()  # frames of a plane are then contiguous in memory, whatever the batch
        out = self._plane(frames[:left], 0, self.bias)
        for t in range(1, planes):
            out = out + self._plane(frames[t : t + left], t, None)
        return _together(out, left)

    def _plane(self, frames: Tensor, t: int, bias: Tensor | None) -> Tensor:
        """Convolve with one plane of the kernel, on (L', N, C, Z, Y, X)."""
        return F.conv3d(frames.flatten(0, 1), self.weight[:, :, t], bias, padding=self.padding)

    def extra_repr(self) -> str:
        """Channels, kernel and padding."""
        out, into = self.weight.shape[:2]
        return f"{into}, {out}, kernel_size={self.kernel_size}, padding={self.padding!r}"
