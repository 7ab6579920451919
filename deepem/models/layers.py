"""Layers around a network of feature maps: input, heads, scaling, cropping.

    (N, C, Z, Y, X) - scale down - "in" conv - core - "out", one conv per head - scale up - crop -> {head: logits}

Scaling and cropping exist only in models that ask for them. The names and the order of the child modules `in`, `core`
and `out` match the public checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepem.models.emvision.sizes import UShape
from deepem.models.emvision.utils import Triple, pad_size, triple
from deepem.utils.crop import centre_crop
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

Spec = Mapping[str, Sequence[int]]
"""Name -> (C, Z, Y, X) of an input or output."""

IO_KERNEL = (1, 5, 5)


class Core(Protocol):
    """Interface of modules that map feature maps of width[0] channels to feature maps of width[0] channels."""

    @property
    def width(self) -> tuple[int, ...]:
        """Channels per level, finest first."""

    @property
    def shape(self) -> UShape:
        """Which patch sizes fit."""

    @property
    def supervisable(self) -> bool:
        """Whether `maps(x, coarsest=n)` also returns the maps of n coarser levels, each covering the whole patch."""


class Conv(nn.Module):
    """A convolution with zero padding of kernel_size // 2, He-initialised weights and zero bias.

    With stride 1 it keeps the patch size.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Triple = 3, stride: Triple = 1, bias: bool = False
    ) -> None:
        super().__init__()
        kernel = triple(kernel_size)
        self.conv = nn.Conv3d(
            in_channels, out_channels, kernel, triple(stride), padding=pad_size(kernel, "same"), bias=bias
        )
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) -> (N, out_channels, Z, Y, X)."""
        out: Tensor = self.conv(x)
        return out


class Scale(nn.Module):
    """Multiply by one learnable factor.

    Args:
        init_value: Initial value of the factor.
    """

    def __init__(self, init_value: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([float(init_value)]))

    def forward(self, x: Tensor) -> Tensor:
        """Return x * scale, with the same shape."""
        return x * self.scale


class Resample(nn.Module):
    """Resample by a factor per axis: averaging to lower resolution, trilinear interpolation to higher resolution.

    Args:
        factor: (z, y, x): 2 doubles the voxels of an axis, 0.5 halves them.
    """

    def __init__(self, factor: Sequence[float]) -> None:
        super().__init__()
        down, up = [f < 1 for f in factor], [f > 1 for f in factor]
        if len(factor) != 3 or (any(down) and any(up)) or min(factor) <= 0:
            raise ValueError(f"factors z, y, x that all raise or all lower the resolution, not {tuple(factor)}")
        self.factor = tuple(float(f) for f in factor)
        self.pool = vec3(round(1 / f) for f in factor) if any(down) else None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) at the other resolution."""
        if self.pool is not None:
            return F.avg_pool3d(x, self.pool)
        return F.interpolate(x, scale_factor=self.factor, mode="trilinear", align_corners=False)


class Crop(nn.Module):
    """Crop the centre of a patch to a fraction of its size, rounded to whole voxels.

    Voxel size // 2 of the crop is voxel size // 2 of the patch, so the crop is aligned with labels cut around the same
    location.

    Args:
        cropsz: Fraction kept per axis, z, y, x, each in (0, 1].
    """

    def __init__(self, cropsz: Sequence[float]) -> None:
        super().__init__()
        if len(cropsz) != 3 or not all(0 < f <= 1 for f in cropsz):
            raise InputError("outputsz", f"{tuple(cropsz)} of the patch", "at most the patch, along each axis")
        self.cropsz = tuple(float(f) for f in cropsz)

    @overload
    def forward(self, x: Tensor, patch: Sequence[int] | None = None) -> Tensor: ...

    @overload
    def forward(self, x: Mapping[str, Tensor], patch: Sequence[int] | None = None) -> dict[str, Tensor]: ...

    def forward(
        self, x: Tensor | Mapping[str, Tensor], patch: Sequence[int] | None = None
    ) -> Tensor | dict[str, Tensor]:
        """View (N, C, z, y, x) of the centre of a tensor, or of each tensor in a dict of heads.

        Fractions are relative to `patch` (z, y, x), by default to the tensor itself.
        """
        if isinstance(x, Mapping):
            return {name: self.forward(head, patch) for name, head in x.items()}
        size = x.shape[-3:] if patch is None else patch
        return centre_crop(x, vec3(round(n * f) for n, f in zip(size, self.cropsz, strict=True)))


class OutputBlock(nn.Module):
    """One convolution per head.

    Args:
        in_channels: Channels of the core's output.
        out_spec: The heads, in the order of their parameters.
        kernel_size: Kernel size of each head's convolution.
    """

    def __init__(self, in_channels: int, out_spec: Spec, kernel_size: Triple = IO_KERNEL) -> None:
        super().__init__()
        for name, shape in out_spec.items():
            self.add_module(name, Conv(in_channels, shape[-4], kernel_size, bias=True))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """{head: logits (N, C, Z, Y, X)}."""
        return {name: head(x) for name, head in self.named_children()}


class Model(nn.Module):
    """A network of feature maps between an input convolution and output heads.

    In training mode only, the result may also contain auxiliary outputs: `head@which` is a further prediction of
    `head`, with the same shape, target and loss.

    Args:
        core: Network from width[0] to width[0] channels.
        in_spec: One input.
        out_spec: The heads.
        cropsz: Fraction of the patch (z, y, x) that the output keeps.
        deep_supervision: Loss weight of an auxiliary prediction from each coarser level of the way up, finest first.

    Attributes:
        auxiliary: Loss weight of each auxiliary output, relative to the weight of its head; empty if there are none.
        shape: Which patch sizes fit.
    """

    def __init__(
        self,
        core: Core,
        in_spec: Spec,
        out_spec: Spec,
        *,
        cropsz: Sequence[float] | None = None,
        deep_supervision: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if len(in_spec) != 1:
            raise ValueError(f"a model has one input, not {list(in_spec)}")
        (shape,) = in_spec.values()
        width, weights = core.width, tuple(deep_supervision or ())
        if weights and not (core.supervisable and len(weights) < len(width)):
            most = f"at most {len(width) - 1}" if core.supervisable else "none for this network"
            raise InputError("deep_supervision", f"{len(weights)} weights", most)
        self.shape = core.shape
        self.down: nn.Module = nn.Identity()
        self.add_module("in", nn.Sequential(OrderedDict(conv=Conv(shape[-4], width[0], IO_KERNEL))))
        self.core: Any = core
        self.out = OutputBlock(width[0], out_spec)
        self.up: nn.Module = nn.Identity()
        self.crop = None if cropsz is None else Crop(cropsz)
        self.auxiliary = {f"{head}@level{d}": w for d, w in enumerate(weights, 1) for head in out_spec}
        if weights:
            self.aux = nn.ModuleList(OutputBlock(c, out_spec, 1) for c in width[1 : len(weights) + 1])

    def scaled(self, factor: Vec3) -> Model:
        """This model on patches averaged over `factor` voxels (z, y, x); its logits are upsampled trilinearly."""
        self.down, self.up = Resample([1 / f for f in factor]), Resample(factor)
        self.shape = replace(self.shape, stem=factor)
        return self

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, Z, Y, X) in [0, 1] -> {head: logits (N, C, Z, Y, X)}, with auxiliary outputs in training mode.

        Raises:
            InputError: the size cannot be pooled evenly.
        """
        patch = x.shape[-3:]
        self.shape.output_size(patch, "network input")
        outputs = self.outputs(getattr(self, "in")(self.down(x)))
        outputs = {name: self.up(logits) for name, logits in outputs.items()}
        return outputs if self.crop is None else self.crop(outputs, patch)

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Logits for the input of the core, heads first, before scaling and cropping."""
        if not (self.auxiliary and self.training):
            return self.out(self.core(x))  # type: ignore[no-any-return]
        finest, *maps = self.core.maps(x, coarsest=len(self.aux))
        outputs: dict[str, Tensor] = self.out(finest)
        for level, (head, coarse) in enumerate(zip(self.aux, maps, strict=True), 1):
            for name, logits in head(coarse).items():
                fine = F.interpolate(logits, size=finest.shape[-3:], mode="trilinear", align_corners=False)
                outputs[f"{name}@level{level}"] = fine
        return outputs


class Unrolled(Model):
    """A model that runs its core `core.unroll` times, each on the output before; the heads read every pass.

    The last pass is the result. The earlier passes are auxiliary outputs `head@pass1`, ... with full weight.
    """

    def __init__(self, core: Core, in_spec: Spec, out_spec: Spec, **options: Any) -> None:
        super().__init__(core, in_spec, out_spec, **options)
        self.unroll: int = self.core.unroll
        self.auxiliary = {f"{head}@pass{k}": 1.0 for k in range(1, self.unroll) for head in out_spec}

    def outputs(self, x: Tensor) -> dict[str, Tensor]:
        """Logits of the last pass and, in training mode, those of the passes before it."""
        earlier: dict[str, Tensor] = {}
        for k in range(1, self.unroll):
            x = self.core(x, unroll=k)
            if self.training:
                earlier.update((f"{name}@pass{k}", logits) for name, logits in self.out(x).items())
        return {**self.out(self.core(x, unroll=self.unroll)), **earlier}
