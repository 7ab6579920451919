"""The U-Net of the CNNectome and of DaCapo: concatenated skips, any factors and kernels, valid convolutions.

The network is in `deepem.models.cnnectome`; this file makes it a model plug-in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from deepem.models.cnnectome import (
    AttentionBlockModule,
    CNNectomeUNet,
    CNNectomeUNetConfig,
    CNNectomeUNetModule,
    ConvPass,
    Downsample,
    Upsample,
)
from deepem.models.cnnectome.model import CNNectomeModel, frames_of
from deepem.models.cnnectome.settings import Equivariant
from deepem.models.cnnectome.sizes import AXES, Sizes
from deepem.models.cnnectome.superres import SuperResolution, with_finer
from deepem.models.cnnectome.unet import sizes_of
from deepem.models.entry import ungrouped
from deepem.models.layers import Spec
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

__all__ = [
    "AttentionBlockModule",
    "CNNectomeUNet",
    "CNNectomeUNetConfig",
    "CNNectomeUNetModule",
    "ConvPass",
    "Downsample",
    "Upsample",
    "create_model",
    "evaluation_size",
    "formerly",
    "output_factor",
    "output_size",
    "tiling",
]

Numbers = tuple[int, ...]
ZFACTOR, XYFACTOR = (1, 1, 3), (2, 2, 2)
formerly: dict[str, object] = {"io_kernel": (1, 5, 5), "equivariant": True}
"""Flags that older checkpoints did not record, and the values that their networks were built with."""


@contextmanager
def _flags_named() -> Iterator[None]:
    """Context in which errors about settings name the flags."""
    try:
        yield
    except InputError as error:
        raise InputError(f"--{error.where.removeprefix('--')}", error.got, error.wants) from error


def _factors(
    downsample_factors: Sequence[Numbers] | None, zfactor: Sequence[int] | None, xyfactor: Sequence[int] | None
) -> tuple[list[Numbers], bool]:
    """Factors (z, y, x) per level, and whether the user gave them as (y, x)."""
    if downsample_factors is not None:
        if zfactor or xyfactor:
            raise InputError("downsample_factors", "zfactor or xyfactor besides", "one or the other")
        return [_zyx(f) for f in downsample_factors], all(len(f) == 2 for f in downsample_factors)
    z, xy = list(zfactor or ZFACTOR), list(xyfactor or XYFACTOR)
    if len(z) != len(xy) or min(*z, *xy) < 1:
        raise InputError("zfactor", " ".join(map(str, z)), f"one per xyfactor, {len(xy)} in all")
    return [(a, b, b) for a, b in zip(z, xy, strict=True)], False


def _zyx(numbers: Numbers) -> Numbers:
    """Convert (y, x) to (z, y, x) and one number to three; leave others unchanged."""
    return (1, *numbers) if len(numbers) == 2 else numbers * 3 if len(numbers) == 1 else numbers


def _kernels(lists: Sequence[Sequence[Numbers]] | None, levels: int, flat: bool) -> list[list[Numbers]]:
    if lists is None:
        return [[(1, 3, 3) if flat else (3, 3, 3)] * 2] * levels
    return [[_zyx(tuple(kernel)) for kernel in level] for level in lists]


def _settings(
    *,
    downsample_factors: Sequence[Numbers] | None = None,
    zfactor: Sequence[int] | None = None,
    xyfactor: Sequence[int] | None = None,
    kernel_size_down: Sequence[Sequence[Numbers]] | None = None,
    kernel_size_up: Sequence[Sequence[Numbers]] | None = None,
    padding: str = "valid",
    equivariant: Equivariant = "eval",
    **_: object,
) -> dict[str, Any]:
    """Convert the flags to the keyword arguments that determine the network's sizes."""
    factors, flat = _factors(downsample_factors, zfactor, xyfactor)
    return {
        "downsample_factors": factors,
        "kernel_size_down": _kernels(kernel_size_down, len(factors) + 1, flat),
        "kernel_size_up": _kernels(kernel_size_up, len(factors), flat),
        "padding": padding,
        "equivariant": equivariant,
    }


def _sizes(flags: dict[str, Any]) -> Sizes:
    with _flags_named():
        sizes = sizes_of(**_settings(**flags))
        finer = flags.get("upsample_factors")
        return with_finer(sizes, [_zyx(f) for f in finer], flags.get("superres_padding", "same")) if finer else sizes


def output_size(input_size: Vec3, **flags: Any) -> Vec3:
    """Output size of a patch in training, in output voxels.

    Raises:
        InputError: the patch does not fit the network in training or in evaluation; the error names the nearest sizes.
    """
    evaluation_size(input_size, **flags)
    return vec3(_sizes(flags).output_size(input_size, training=True))


def evaluation_size(input_size: Vec3, **flags: Any) -> Vec3:
    """Output size of a patch in evaluation, where maps are cropped to keep the network translation-equivariant.

    Raises:
        InputError: the patch does not fit the network; the error names the nearest sizes.
    """
    sizes = _sizes(flags)
    found = sizes.output_size(input_size)
    for axis in (axis for axis, size in enumerate(input_size) if sizes.off_centre(axis, size)):
        near = (n for n in range(1, 4 * input_size[axis] + 100) if sizes.course(axis, n) is not None)
        fits = [n for n in near if not sizes.off_centre(axis, n)]
        size = min(fits, key=lambda n: abs(n - input_size[axis]), default=None)
        works = f"{AXES[axis]} = {size} instead of {input_size[axis]}, or equivariant" if size else "equivariant"
        wants = f"{works} True or False: evaluation would move the finer output by half a voxel of the image"
        raise InputError("fov (or inputsz)", ",".join(map(str, input_size)), wants)
    return vec3(found)


def output_factor(*, upsample_factors: Sequence[Numbers] | None = None, **_: object) -> Vec3:
    """Output voxels per input voxel, (z, y, x)."""
    found = [_zyx(factor) for factor in upsample_factors or ()]
    return vec3(prod(factor[axis - 3] for factor in found) for axis in range(3))


def tiling(*, io_kernel: Vec3 | None = None, **flags: Any) -> Vec3 | None:
    """Steps (z, y, x), in output voxels, by which a patch may move without changing the value of any voxel.

    The step is the product of all poolings. It is None for a padded network, whose values depend on the patch.
    """
    sizes = _sizes(flags)
    if sizes.padded or io_kernel is not None or any(padded for _, _, padded in sizes.finer):
        return None
    return vec3(n * f for n, f in zip(sizes.step, output_factor(**flags), strict=True))


@dataclass(frozen=True)
class Geometry:
    """Poolings and kernels, which determine the sizes of patches.

    Attributes:
        downsample_factors: Pooling z,y,x per level, finest first; or y,x for 2-D networks on single sections.
        zfactor: z pooling factor per level, 1 1 3 by default; together with xyfactor, a short form of
            downsample_factors.
        xyfactor: y and x pooling factor per level, 2 2 2 by default.
        kernel_size_down: Kernels on the way down, one z,y,x per convolution, levels separated by a slash; l,z,y,x also
            convolves along the length axis. Two of 3,3,3 per level by default.
        kernel_size_up: Kernels on the way up, finest level first.
        padding: Whether convolutions are padded; without padding they shrink the patch.
        equivariant: Crop so that the output does not depend on where a patch begins; eval crops in evaluation only,
            which leaves the output larger in training.
        upsample_factors: Factors z,y,x by which the output is finer than the input, one per step.
        superres_padding: Padding of the convolutions at the finer resolution.
    """

    downsample_factors: list[tuple[int, ...]] | None = None
    zfactor: list[int] | None = None
    xyfactor: list[int] | None = None
    kernel_size_down: list[list[tuple[int, ...]]] | None = None
    kernel_size_up: list[list[tuple[int, ...]]] | None = None
    padding: Literal["valid", "same"] = "valid"
    equivariant: Literal[True, False, "eval"] = "eval"
    upsample_factors: list[tuple[int, ...]] | None = None
    superres_padding: Literal["same", "valid"] = "same"


@dataclass(frozen=True)
class Layers:
    """Channels, and the layers between convolutions.

    Attributes:
        num_fmaps: Channels of the finest level.
        fmap_inc_factor: Factor by which channels grow from level to level.
        fmaps_out: Channels that the heads read, num_fmaps by default.
        pooling: Max or average pooling.
        activation: The name of a class of torch.nn.
        constant_upsample: Upsample by nearest neighbour instead of a transposed convolution.
        activation_on_upsample: Apply the activation after upsampling too.
        upsample_channel_contraction: For each level, whether upsampling reduces the channels; by default at all levels
            but the finest.
        use_attention: Weigh the skips by the coarser maps.
        batch_norm: Apply batch norm after every convolution.
    """

    num_fmaps: int = 12
    fmap_inc_factor: int = 5
    fmaps_out: int | None = None
    pooling: Literal["max", "avg"] = "max"
    activation: str = "ReLU"
    constant_upsample: bool = True
    activation_on_upsample: bool = True
    upsample_channel_contraction: list[Literal[True, False]] | None = None
    use_attention: bool = False
    batch_norm: bool = False

    def settings(self, levels: int) -> dict[str, Any]:
        """Return the arguments of the network of this many poolings."""
        contract = self.upsample_channel_contraction or [False, *[True] * (levels - 1)]
        given = {**vars(self), "num_fmaps_out": self.fmaps_out}
        del given["fmaps_out"]
        return {**given, "upsample_channel_contraction": [bool(c) for c in contract]}


def build(
    *,
    in_spec: Spec,
    out_spec: Spec,
    cropsz: tuple[float, float, float] | None = None,
    geometry: Geometry,
    layers: Layers,
    decoder_per_task: bool = False,
    length: int = 1,
    io_kernel: tuple[int, int, int] | None = None,
) -> CNNectomeModel:
    """Build the network and its heads; the choices are those of DaCapo's configuration.

    Args:
        in_spec: The input.
        out_spec: The heads.
        cropsz: Fraction of the patch that the output keeps.
        geometry: Poolings and kernels.
        layers: Channels and layers.
        decoder_per_task: Give each head its own decoder; otherwise all heads read the same maps.
        length: Number of frames that the image's channels are divided into, for four-dimensional convolutions.
        io_kernel: Kernel z,y,x of a padded convolution before the network, and of the heads. If not given, there is no
            such convolution and heads are 1,1,1; only then do patches of a valid network tile without seams.
    """
    if len(in_spec) != 1:
        raise ValueError(f"a model has one input, not {list(in_spec)}")
    flags = vars(geometry)
    (shape,) = in_spec.values()
    channels = frames_of(shape[-4], length, _sizes(flags))
    settings = _settings(**flags)
    with _flags_named():
        unet = CNNectomeUNetModule(
            channels if io_kernel is None else layers.num_fmaps,
            num_heads=len(out_spec) if decoder_per_task else 1,
            **layers.settings(len(settings["downsample_factors"])),
            **settings,
        )
        finer = [_zyx(f) for f in geometry.upsample_factors or ()]
        core = SuperResolution(unet, finer, geometry.superres_padding) if finer else unet
    return CNNectomeModel(core, out_spec, in_channels=channels, io_kernel=io_kernel, length=length, cropsz=cropsz)


create_model = ungrouped(build)
