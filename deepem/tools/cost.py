"""The rows of `deepem summary`, from shapes alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from deepem.models.emvision.memory import live_bytes
from deepem.models.emvision.receptive_field import receptive_field
from deepem.models.emvision.sizes import AXES, UShape
from deepem.utils import modules
from deepem.utils.geometry import Vec3

MIB = 2**20


def summary(options: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows of the summary: what, and how much of it."""
    module = modules.load("model", options["model"])
    flags = {flag.name: options[flag.name] for flag in modules.flags("model", module)}

    def build() -> nn.Module:
        spec = {"in_spec": {"input": (options["in_channels"], *options["fov"])}}
        spec["out_spec"] = {"output": (options["channels"], *options["fov"])}
        model: nn.Module = module.create_model(**spec, **flags)
        return model

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
    return [*rows, *costs(model, x, out)]


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
