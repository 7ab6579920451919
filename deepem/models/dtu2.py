"""A wide U-Net of valid convolutions without norm, pooled by 3; its output is much smaller than the patch."""

from __future__ import annotations

from collections.abc import Sequence

from deepem.models import emvision
from deepem.models.emvision.dtu import FACTORS, KERNELS, WIDTH, dtu_shape
from deepem.models.emvision.sizes import UShape
from deepem.models.entry import model_of, widths
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3


def _shape(levels: int, kernel_sizes: Sequence[Vec3] | None, downsample_factors: Sequence[Vec3] | None) -> UShape:
    """Size arithmetic of the network.

    Raises:
        InputError: kernels or factors below 1, or too few of them.
    """
    for flag, given in (("kernel_sizes", kernel_sizes), ("downsample_factors", downsample_factors)):
        if any(n < 1 for numbers in given or () for n in numbers):
            raise InputError(flag, given, "numbers of 1 or more")
    return dtu_shape(levels, kernel_sizes or KERNELS, downsample_factors or FACTORS)


def output_size(
    input_size: Vec3,
    *,
    depth: int = 4,
    width: Sequence[int] | None = None,
    kernel_sizes: Sequence[Vec3] | None = None,
    downsample_factors: Sequence[Vec3] | None = None,
    **_: object,
) -> Vec3:
    """Output size of a patch: 22,212,239 gives 2,4,31. Raise InputError with the nearest sizes if it does not fit."""
    levels = len(widths(depth, width, WIDTH))
    return _shape(levels, kernel_sizes, downsample_factors).output_size(input_size)


def core(
    width: tuple[int, ...],
    *,
    kernel_sizes: list[tuple[int, int, int]] | None = None,
    downsample_factors: list[tuple[int, int, int]] | None = None,
) -> emvision.DTU2:
    """Build the network with its input convolution and heads.

    Args:
        width: Channels per level.
        kernel_sizes: Kernel z,y,x per level, 1,3,3 1,3,3 3,3,3 3,3,3 by default.
        downsample_factors: Pooling z,y,x between levels; 1,3,3 1,3,3 3,3,3 by default.
    """
    _shape(len(width), kernel_sizes, downsample_factors)
    return emvision.DTU2(width, kernel_sizes or KERNELS, downsample_factors or FACTORS)


create_model = model_of(core, default=WIDTH, supervised=False)
