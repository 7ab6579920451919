"""Speed up networks: channels-last memory, and a way around torch's slow CPU kernel for small convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST = 20_480
"""torch 2.10-2.13 uses oneDNN for a float32 convolution of one sample if channels * z * y is larger than this.
Otherwise it uses its own kernel, which takes 2 to 10 times as long (`use_mkldnn` in
aten/src/ATen/native/Convolution.cpp)."""


class _Padded(nn.Conv3d):
    """A convolution with a correct bfloat16 gradient even if the input has fewer sections than the kernel.

    In this case oneDNN (at least in torch 2.13) reads out of bounds for the gradient of the weights, which gives
    infinities or a crash. Explicit zero padding avoids this.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) -> (N, C', Z', Y', X')."""
        z, y, x_ = map(int, self.padding)
        if not (z and 1 < x.shape[-3] < self.kernel_size[0] and torch.is_grad_enabled() and _is_half(x)):
            return super().forward(x)
        padded = functional.pad(x, (0, 0, 0, 0, z, z))
        return functional.conv3d(padded, self.weight, self.bias, self.stride, (0, y, x_), self.dilation, self.groups)


def _is_half(x: Tensor) -> bool:
    """Whether a convolution of x runs in half precision on a CPU."""
    whole = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and not whole


class _Halved(_Padded):
    """A convolution that always runs in oneDNN, because it splits one sample into halves, a batch of two samples.

    The halves overlap by the reach of the kernel, and by one more row if the number of output rows is odd::

        y  ->   [ first      ]
                       [     second ]
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) -> (N, C', Z', Y', X')."""
        if not _is_slow(x):
            return super().forward(x)
        (_, step, _), (z, pad, x_) = self.stride, map(int, self.padding)
        reach = self.dilation[1] * (self.kernel_size[1] - 1) + 1
        rows = (x.shape[-2] + 2 * pad - reach) // step + 1  # of the output
        half = -(-rows // 2)
        begin, length = (rows - half) * step, (half - 1) * step + reach
        padded = functional.pad(x, (0, 0, pad, pad)) if pad else x
        halves = torch.cat([padded[..., :length, :], padded[..., begin : begin + length, :]])
        out = functional.conv3d(halves, self.weight, self.bias, self.stride, (z, 0, x_), self.dilation)
        return torch.cat([out[:1], out[1:, ..., 2 * half - rows :, :]], -2)


def _is_slow(x: Tensor) -> bool:
    """Whether torch would not use oneDNN; it always does in half precision."""
    whole = x.device.type == "cpu" and not _is_half(x)
    return whole and x.ndim == 5 and len(x) == 1 and x[0, ..., 0].numel() <= LEAST


def quicken(network: object) -> list[nn.Conv3d]:
    """Make the small convolutions of a network fast and correct on a CPU, and return the changed ones.

    Weights and their names do not change, and results change only by rounding. Kernels that are one voxel wide are
    faster unchanged; so are those of 5x5 and more, for which torch uses oneDNN anyway.
    """
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    changed = [m for m in modules if type(m) is nn.Conv3d and (_can_be_slow(m) or _can_be_wrong(m))]
    for convolution in changed:
        convolution.__class__ = _Halved if _can_be_slow(convolution) else _Padded
    return changed


def _can_be_wrong(module: nn.Conv3d) -> bool:
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        return False
    return module.kernel_size[0] > 2 and module.padding[0] > 0


def _can_be_slow(module: nn.Conv3d) -> bool:
    if module.groups > 1:
        return False
    if module.padding_mode != "zeros" or isinstance(module.padding, str):
        return False
    _, y, x = module.kernel_size
    return min(y, x) > 1 and min(y, x) <= 3 and module.in_channels > 1


@contextmanager
def quick(network: object) -> Iterator[None]:
    """Within the block, run a network in its fastest form: channels last and, on a CPU, with fast small convolutions.

    Afterwards the network is restored, and its weights are in the same memory as before.
    """
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    own = [w for module in modules for w in (*module.parameters(recurse=False), *module.buffers(recurse=False))]
    before = [(w, w.data) for w in own if w.ndim == 5]
    changed = quicken(network)
    for weight, data in before:
        weight.data = data.to(memory_format=torch.channels_last_3d)
    try:
        yield
    finally:
        for weight, data in before:
            weight.data = data
        for convolution in changed:
            convolution.__class__ = nn.Conv3d
