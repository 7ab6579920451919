"""Compute the rows of `deepem summary` from shapes, without running the network."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deepem.build.network import as_module
from deepem.cli.plugins import PlugIn
from deepem.models.cnnectome.sizes import Sizes
from deepem.models.emvision.memory import live_bytes
from deepem.models.emvision.receptive_field import receptive_field
from deepem.models.emvision.sizes import AXES, UShape
from deepem.tools import context
from deepem.utils.geometry import Vec3, vec3

MIB = 2**20


def summary(
    plug_in: PlugIn,
    fov: Vec3,
    voxel_size_nm: tuple[float, float, float],
    in_channels: int,
    channels: int,
    batch_size: int,
) -> list[tuple[str, str]]:
    """Return the rows of the summary: a quantity and its value."""

    def build(plug_in: PlugIn = plug_in) -> nn.Module:
        spec = {"in_spec": {"input": (in_channels, *fov)}, "out_spec": {"output": (channels, *fov)}}
        return as_module(plug_in.create(**spec), plug_in.where)

    def flops(plug_in: PlugIn, patch: Vec3) -> int:
        with torch.device("meta"):
            return _flops(build(plug_in), torch.empty(1, in_channels, *patch))

    with torch.device("meta"):
        model = build()
    shape: UShape | Sizes | None = getattr(model, "shape", None)
    if isinstance(shape, Sizes):
        x = torch.empty(batch_size, in_channels, *fov, device="meta")
        out = vec3(shape.output_size(fov))
        rows = [*parameters(model), *context.rows(shape, fov, voxel_size_nm), *costs(model, x, out)]
        return [*rows, *context.valid_against_same(plug_in, shape, fov, flops)]
    out = shape.output_size(fov) if shape else fov
    x = torch.empty(batch_size, in_channels, *fov, device="meta")
    rows = [*parameters(model), ("patch", f"{comma(fov)} -> {comma(out)}")]
    if shape:
        rows += sizes(shape, fov)
        field = receptive_field(build(), shape)
        size_nm = (f"{n * nm:g}" for n, nm in zip(field or (), voxel_size_nm, strict=False))
        seen = f"{comma(field)} voxels z,y,x = {','.join(size_nm)} nm" if field else "the whole patch"
        rows.append(("receptive field", seen))
    return [*rows, *costs(model, x, out)]


def comma(values: tuple[int, ...]) -> str:
    """Return z,y,x as written on the command line."""
    return ",".join(map(str, values))


def parameters(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Return the number of parameters, in total and for each child module."""
    yield "parameters", f"{sum(p.numel() for p in model.parameters()):,}"
    for name, child in model.named_children():
        if count := sum(p.numel() for p in child.parameters()):
            yield f"  {name}", f"{count:,}"


def sizes(shape: UShape, size: Vec3) -> Iterator[tuple[str, str]]:
    """Return the smallest valid patch size and the step between valid sizes, per axis."""
    for axis, name in enumerate(AXES):
        works = [n for n in range(1, 2 * size[axis] + 4 * shape.period[axis]) if shape.along(axis, n)]
        step = works[1] - works[0] if len(works) > 1 else shape.period[axis]
        yield f"valid sizes {name}", f"{works[0]}, {works[0] + step}, ... in steps of {step}"


def costs(model: nn.Module, x: Tensor, out: Vec3) -> Iterator[tuple[str, str]]:
    """Return FLOPs and memory of a forward pass and a training step in float32, from shapes alone."""
    voxels = x.shape[0] * out[0] * out[1] * out[2]
    with torch.no_grad(), live_bytes() as forward:
        model.eval()(x)
    yield "FLOPs per output voxel", f"{_flops(model, x) / voxels:,.0f} forward (2 per multiply-add)"
    own = sum(p.numel() * p.element_size() for p in model.parameters())
    yield "memory, inference", f"{(own + forward[0]) / MIB:,.0f} MiB at most for the patch, float32"
    with live_bytes() as step:
        sum(y.sum() for y in model.train()(x).values()).backward()
    yield "memory, training", f"{(3 * own + step[0]) / MIB:,.0f} MiB at most, float32, gradients and Adam included"


def _flops(model: nn.Module, x: Tensor) -> int:
    """Return the FLOPs of a forward pass in eval mode."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(x)
    return int(counter.get_total_flops())
