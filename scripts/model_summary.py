#!/usr/bin/env python
"""What a model costs and sees: parameters, receptive field, FLOPs, memory, patch sizes. Nothing is computed but shapes.

python scripts/model_summary.py --model rsunet --fov 20,256,256 --voxel_size_nm 40,4,4
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from deepem.models.emvision.sizes import AXES, UShape
from deepem.utils import argv, modules
from deepem.utils.geometry import Vec3, vec3

MIB = 2**20


def main(words: list[str] | None = None) -> None:
    """Print the summary of the model that the command line names."""
    parser = argv.Parser("model_summary.py", __doc__ or "")
    parser.add_argument("--model", default="rsunet", help="model module")
    parser.add_argument("--fov", type=argv.size, default=(20, 256, 256), help="patch, z,y,x")
    parser.add_argument("--voxel_size_nm", type=argv.fractions, default=(40.0, 4.0, 4.0), help="z,y,x")
    parser.add_argument("--in_channels", type=argv.counting, default=1, help="channels of the image")
    parser.add_argument("--channels", type=argv.counting, default=3, help="channels of the output")
    parser.add_argument("--batch_size", type=argv.counting, default=1, help="patches per step")
    options = vars(argv.parse(parser, words, {"model": "model"}, lambda _: None))
    module = modules.load("model", options["model"])
    flags = {flag.name: options[flag.name] for flag in modules.flags("model", module)}

    def build() -> nn.Module:
        spec = {"in_spec": {"input": (options["in_channels"], *options["fov"])}}
        spec["out_spec"] = {"output": (options["channels"], *options["fov"])}
        return module.create_model(**spec, **flags)

    with torch.device("meta"):
        model = build()
    shape: UShape | None = getattr(model, "shape", None)
    out = shape.output_size(options["fov"]) if shape else options["fov"]
    x = torch.empty(options["batch_size"], options["in_channels"], *options["fov"], device="meta")
    rows = [*parameters(model), ("patch", f"{comma(options['fov'])} -> {comma(out)}")]
    if shape:
        rows += sizes(shape, options["fov"])
        field = receptive_field(build(), shape)
        size_nm = (f"{n * nm:g}" for n, nm in zip(field or (), options["voxel_size_nm"], strict=False))
        seen = f"{comma(field)} voxels z,y,x = {','.join(size_nm)} nm" if field else "the whole patch"
        rows.append(("receptive field", seen))
    rows += costs(model, x, out)
    for name, value in rows:
        print(f"{name:<28} {value}")


def comma(values: tuple[int, ...]) -> str:
    """z,y,x as on the command line."""
    return ",".join(map(str, values))


def parameters(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Number of parameters, in all and by child."""
    yield "parameters", f"{sum(p.numel() for p in model.parameters()):,}"
    for name, child in model.named_children():
        if count := sum(p.numel() for p in child.parameters()):
            yield f"  {name}", f"{count:,}"


def sizes(shape: UShape, size: Vec3) -> Iterator[tuple[str, str]]:
    """The smallest patch side and the step between those that work, per axis."""
    for axis, name in enumerate(AXES):
        works = [n for n in range(1, 2 * size[axis] + 4 * shape.period[axis]) if shape.along(axis, n)]
        step = works[1] - works[0] if len(works) > 1 else shape.period[axis]
        yield f"valid sizes {name}", f"{works[0]}, {works[0] + step}, ... in steps of {step}"


def receptive_field(model: nn.Module, shape: UShape) -> Vec3 | None:
    """Extent (z, y, x) of the input that an output voxel depends on, None if that is the whole patch.

    It varies with the voxel's place in the grid of poolings; this is the largest.
    """
    extent = [_extent(model.eval(), shape, axis) for axis in range(3)]
    return None if None in extent else vec3(extent)


def _extent(model: nn.Module, shape: UShape, axis: int) -> int | None:
    size = [next(n for n in range(1, 10_000) if shape.along(a, n)) for a in range(3)]
    while True:
        line = torch.arange(float(size[axis])).reshape([-1 if a == axis else 1 for a in range(3)])
        first, last = (_reach(model, (sign * line).expand(1, 1, *size), axis) * sign for sign in (-1, 1))
        middle = slice(len(last) // 2, len(last) // 2 + shape.period[axis])
        if first[middle].min() > 0 and last[middle].max() < size[axis] - 1:  # not cut off at the borders
            return int((last - first)[middle].max()) + 1
        if size[axis] > 4096:  # squeeze-excitation sees all there is
            return None
        size[axis] = next(n for n in range(2 * size[axis], 10**6) if shape.along(axis, n))


def _reach(model: nn.Module, x: Tensor, axis: int) -> Tensor:
    """The largest value of x that each output voxel depends on, along one axis."""
    with torch.no_grad(), Reach():
        (y,) = model(x.contiguous()).values()
    return y.amax([a for a in range(5) if a != axis + 2])


class Reach(TorchFunctionMode):
    """Networks computed with the maximum in place of every weighted sum: which inputs matter, whatever the weights."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func.__name__.strip("_"), kwargs or {}
        if name in ("conv3d", "max_pool3d", "avg_pool3d"):
            return self.window(name, *args, **kwargs)
        if name == "conv_transpose3d":
            return self.transposed(*args, **kwargs)
        if name == "interpolate":
            return self.interpolated(*args, **kwargs)
        if name in ("batch_norm", "group_norm", "instance_norm", "prelu", "relu", "leaky_relu", "elu", "sigmoid"):
            return args[0]
        if name in ("add", "iadd", "mul", "cat"):
            tensors = [t for t in tree_leaves(args) if isinstance(t, Tensor)]
            return functools.reduce(torch.maximum, tensors)
        if name == "mean":
            return args[0].amax(args[1], keepdim=True)
        if name == "pad":
            return F.pad(args[0], args[1], value=-torch.inf)
        return func(*args, **kwargs)

    def window(self, name: str, x: Tensor, kernel: Any, *rest: Any, **options: Any) -> Tensor:
        """Convolutions and poolings."""
        if name == "conv3d":
            stride, padding = rest[1:3]
            kernel = kernel.shape[2:]
            padding = {"same": [k // 2 for k in kernel], "valid": 0}.get(padding, padding) if rest[2:] else 0
        else:
            stride, padding = kernel, 0
        return F.max_pool3d(x.amax(1, keepdim=True), tuple(kernel), stride, padding)

    def transposed(
        self, x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, *_: Any, **__: Any
    ) -> Tensor:
        """Output voxel o sees inputs (o + p - k + 1) / f to (o + p) / f."""
        x = x.amax(1, keepdim=True)
        for axis in range(3):
            f, k, n = stride[axis], weight.shape[axis + 2], x.shape[axis + 2]
            p = padding if isinstance(padding, int) else padding[axis]
            o = torch.arange((n - 1) * f - 2 * p + k) + p
            x = _either(x, axis, (o - k + f).div(f, rounding_mode="floor"), o.div(f, rounding_mode="floor"))
        return x

    def interpolated(
        self, x: Tensor, scale_factor: Any, mode: str = "nearest", align_corners: Any = None, **_: Any
    ) -> Tensor:
        """Nearest neighbour, or the two around."""
        for axis in range(3):
            n, f = x.shape[axis + 2], int(scale_factor[axis])
            o = torch.arange(n * f, dtype=torch.float64)
            if mode == "nearest":
                low = high = (o / f).floor()
            else:
                at = o * (n - 1) / max(1, n * f - 1) if align_corners else (o + 0.5) / f - 0.5
                low, high = at.floor(), at.ceil()
            x = _either(x, axis, low.long(), high.long())
        return x


def _either(x: Tensor, axis: int, low: Tensor, high: Tensor) -> Tensor:
    """The larger of two neighbours along one axis, indices clamped to it."""
    last = x.shape[axis + 2] - 1
    a, b = (x.index_select(axis + 2, i.clamp(0, last)) for i in (low, high))
    return torch.maximum(a, b)


def costs(model: nn.Module, x: Tensor, out: Vec3) -> Iterator[tuple[str, str]]:
    """FLOPs and memory of a forward pass and of a training step, from shapes alone, in float32."""
    voxels = x.shape[0] * out[0] * out[1] * out[2]
    with torch.no_grad(), FlopCounterMode(display=False) as counter, live_bytes() as forward:
        model.eval()(x)
    yield "FLOPs per output voxel", f"{counter.get_total_flops() / voxels:,.0f} forward (2 per multiply-add)"
    own = sum(p.numel() * p.element_size() for p in model.parameters())
    yield "memory, inference", f"{(own + forward[0]) / MIB:,.0f} MiB at most for the patch, float32"
    with live_bytes() as step:
        sum(y.sum() for y in model.train()(x).values()).backward()
    yield "memory, training", f"{(3 * own + step[0]) / MIB:,.0f} MiB at most, float32, gradients and Adam included"


@contextmanager
def live_bytes() -> Iterator[list[int]]:
    """The largest number of bytes that tensors made within hold at a time."""
    peak = [0]
    with _Live(peak):
        yield peak


class _Live(TorchDispatchMode):
    """Counts the storages that operations make for as long as somebody holds them."""

    def __init__(self, peak: list[int]) -> None:
        super().__init__()
        self.peak = peak
        self.held: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        self.held = {key: held for key, held in self.held.items() if not held[0].expired()}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                storage = tensor.untyped_storage()
                self.held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak[0] = max(self.peak[0], sum(size for _, size in self.held.values()))
        return result


if __name__ == "__main__":
    with argv.one_line_errors("model_summary.py"):
        main()
