"""The receptive field of a network, found by running it; it is exact for the network's sizes and any weights."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from deepem.models.emvision.sizes import UShape
from deepem.utils.geometry import Vec3, vec3


def receptive_field(model: nn.Module, shape: UShape) -> Vec3 | None:
    """Extent (z, y, x) of the input that an output voxel depends on; None if it is the whole patch.

    The extent varies with the voxel's position relative to the poolings; this is the largest one.
    """
    try:
        extent = [n for axis in range(3) if (n := _extent(model.eval(), shape, axis)) is not None]
    except WholePatch:
        return None
    return vec3(extent) if len(extent) == 3 else None


def _extent(model: nn.Module, shape: UShape, axis: int) -> int | None:
    size = [next(n for n in range(1, 10_000) if shape.along(a, n)) for a in range(3)]
    while True:
        line = torch.arange(float(size[axis])).reshape([-1 if a == axis else 1 for a in range(3)])
        first, last = (_reach(model, (sign * line).expand(1, 1, *size), axis) * sign for sign in (-1, 1))
        middle = slice(len(last) // 2, len(last) // 2 + shape.period[axis])
        if first[middle].min() > 0 and last[middle].max() < size[axis] - 1:  # not cut off at the borders
            return int((last - first)[middle].max()) + 1
        if size[axis] > 4096:  # squeeze-excitation sees the whole patch
            return None
        size[axis] = next(n for n in range(2 * size[axis], 10**6) if shape.along(axis, n))


def _reach(model: nn.Module, x: Tensor, axis: int) -> Tensor:
    """The largest input coordinate that each output voxel depends on, along one axis."""
    with torch.no_grad(), Reach():
        (y,) = model(x.contiguous()).values()
    largest: Tensor = y.amax([a for a in range(5) if a != axis + 2])
    return largest


class WholePatch(Exception):
    """The network attends to every voxel of the patch."""


ATTENTION = ("scaled_dot_product_attention", "matmul", "bmm", "softmax")
AS_THEY_ARE = (
    *("batch_norm", "group_norm", "instance_norm", "prelu", "relu", "leaky_relu", "elu", "gelu", "sigmoid"),
    *("silu", "dropout"),
)
"""Operations that mix no voxels. Norms count as such, although group and instance norms take means over the patch."""


class Reach(TorchFunctionMode):
    """Run networks with a maximum instead of every weighted sum, which shows the inputs that matter for any weights."""

    def __torch_function__(self, func: Any, types: Any, inputs: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.__name__.strip("_"), kwargs or {}
        if name in ("conv3d", "max_pool3d", "avg_pool3d"):
            return self.window(name, *inputs, **kwargs)
        if name == "conv_transpose3d":
            return self.transposed(*inputs, **kwargs)
        if name == "interpolate" and inputs[0].ndim == 5:
            return self.interpolated(*inputs, **kwargs)
        if name in AS_THEY_ARE:
            return inputs[0]
        if name in ATTENTION:
            raise WholePatch
        if name in ("add", "iadd", "mul", "cat"):
            tensors = [t for t in tree_leaves(inputs) if isinstance(t, Tensor)]
            if name != "cat" or len({t.shape for t in tensors}) == 1:
                return functools.reduce(torch.maximum, tensors)
        if name == "mean":
            return inputs[0].amax(inputs[1], keepdim=True)
        if name == "pad":
            return F.pad(inputs[0], inputs[1], value=-torch.inf)
        return func(*inputs, **kwargs)

    def window(self, name: str, x: Tensor, kernel: Any, *rest: Any, **named: Any) -> Tensor:
        """Convolutions and poolings."""
        if name == "conv3d":
            stride, padding = rest[1:3]
            kernel = kernel.shape[2:]
            padding = {"same": [k // 2 for k in kernel], "valid": 0}.get(padding, padding) if rest[2:] else 0
        else:
            kernel = _triple(kernel)
            stride = named.get("stride", rest[0] if rest else None) or kernel
            padding = named.get("padding", rest[1] if rest[1:] else 0)
        return F.max_pool3d(x.amax(1, keepdim=True), tuple(kernel), stride, padding)

    def transposed(
        self,
        x: Tensor,
        weight: Tensor,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        *_: Any,
        **__: Any,
    ) -> Tensor:
        """Output voxel o sees inputs (o + p - k + 1) / f to (o + p) / f."""
        x = x.amax(1, keepdim=True)
        for axis in range(3):
            f, k, n = _triple(stride)[axis], weight.shape[axis + 2], x.shape[axis + 2]
            p, more = _triple(padding)[axis], _triple(output_padding)[axis]
            o = torch.arange((n - 1) * f - 2 * p + k + more) + p
            x = _either(x, axis, (o - k + f).div(f, rounding_mode="floor"), o.div(f, rounding_mode="floor"))
        return x

    def interpolated(
        self,
        x: Tensor,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: Any = None,
        **_: Any,
    ) -> Tensor:
        """Nearest neighbour, or the two surrounding voxels."""
        for axis in range(3):
            n = x.shape[axis + 2]
            larger = _triple(size)[axis] if size is not None else int(n * _triple(scale_factor)[axis])
            o, f = torch.arange(larger, dtype=torch.float64), larger / n
            if mode == "nearest":
                low = high = (o / f).floor()
            else:
                at = o * (n - 1) / max(1, larger - 1) if align_corners else (o + 0.5) / f - 0.5
                low, high = at.floor(), at.ceil()
            x = _either(x, axis, low.long(), high.long())
        return x


def _triple(value: Any) -> tuple[Any, Any, Any]:
    """Return one number for each axis."""
    z, y, x = (value,) * 3 if isinstance(value, (int, float)) else value
    return z, y, x


def _either(x: Tensor, axis: int, low: Tensor, high: Tensor) -> Tensor:
    """Maximum of two neighbours along one axis; indices are clamped to it."""
    last = x.shape[axis + 2] - 1
    a, b = (x.index_select(axis + 2, i.clamp(0, last)) for i in (low, high))
    return torch.maximum(a, b)
