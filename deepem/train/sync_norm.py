"""Batch norm over the batches of all ranks. torch has one for GPUs; this one also runs on a CPU.

The statistics of n values x over all ranks need only sums, and so does the gradient (Ioffe and Szegedy 2015, section
3):

    mean = sum(x) / n        var = sum(x^2) / n - mean^2        y = w (x - mean) / sqrt(var + eps) + b
    dL/dx = w / sqrt(var + eps) * (dy - sum(dy) / n - x^ sum(dy x^) / n)        with x^ = (x - mean) / sqrt(var + eps)

One all-reduce in the forward pass sums n, x and x^2; one in the backward pass sums dy and dy x^.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise(network: nn.Module, device: torch.device, frozen: Collection[nn.Module] = ()) -> None:
    """Make all batch norms of a network, except frozen ones, compute over all ranks. Modules and names stay."""
    for module in network.modules():
        if isinstance(module, _BatchNorm) and module not in frozen:
            if device.type == "cuda":
                module.__class__ = nn.SyncBatchNorm
                module.process_group = None  # type: ignore[assignment]
            else:
                module.__class__ = SyncedBatchNorm


class SyncedBatchNorm(_BatchNorm):
    """Batch norm over all ranks, on any device. In eval mode it is ordinary batch norm."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected an input of two axes or more, got {input.ndim}")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> (N, C, ...)."""
        self._check_input_dim(input)
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        out, mean, var, count = _Synced.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.eps
        )
        if self.training and self.running_mean is not None:
            self._follow(mean, var * (count / (count - 1).clamp(min=1)))
        return out  # type: ignore[no-any-return]

    @torch.no_grad()
    def _follow(self, mean: Tensor, var: Tensor) -> None:
        """Update the running statistics with those of a batch."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        step = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), step)
        self.running_var.lerp_(var.to(self.running_var.dtype), step)


class _Synced(torch.autograd.Function):
    """Return the outputs, and the mean, biased variance and number of values per channel over all ranks."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        exact = _exact(x)
        var, mean = (part.double() for part in torch.var_mean(exact, _all_but_channels(x), correction=0))
        count = mean.new_full((1,), x.numel() / x.shape[1])
        sums = torch.cat([count, mean * count, (var + mean**2) * count])
        distributed.all_reduce(sums)
        count, (mean, squares) = sums[:1], (sums[1:] / sums[:1]).view(2, -1)
        var = (squares - mean**2).clamp(min=0)
        scale = (var + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.mark_non_differentiable(mean, var, count)
        out = _normed(x, mean, scale)
        if weight is not None and bias is not None:
            out = torch.addcmul(_wide(bias, out), out, _wide(weight, out))
        return out.to(x.dtype), mean, var, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        dy, normed = _exact(gradients[0]), _normed(x, mean, scale)
        own = torch.stack([dy.sum(_all_but_channels(x)), (dy * normed).sum(_all_but_channels(x))])
        sums = own.to(torch.float64, copy=True)
        distributed.all_reduce(sums)
        shift, slope = sums / count
        slant = scale if weight is None else scale * weight
        dx = (dy - _wide(shift, dy) - normed * _wide(slope, dy)) * _wide(slant, dy)
        mine = (None, None) if weight is None else (own[1].to(weight.dtype), own[0].to(weight.dtype))
        return dx.to(x.dtype), *mine, None


def _exact(x: Tensor) -> Tensor:
    """Return the values in float32; float64 values stay float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _normed(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    exact = _exact(x)
    return (exact - _wide(mean, exact)) * _wide(scale, exact)


def _all_but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


def _wide(values: Tensor, x: Tensor) -> Tensor:
    """Reshape values per channel (C) to broadcast against x, in the type of x."""
    return values.to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))
