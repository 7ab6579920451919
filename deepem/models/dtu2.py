"""A wide U-Net of valid convolutions without norm, pooled by 3; its output is much smaller than the patch."""

from __future__ import annotations

from collections.abc import Sequence

from deepem.models import emvision
from deepem.models.emvision.dtu import WIDTH, dtu_shape
from deepem.models.entry import model_of, widths
from deepem.utils.geometry import Vec3


def output_size(input_size: Vec3, *, depth: int = 4, width: Sequence[int] | None = None, **_: object) -> Vec3:
    """What is left of a patch: 22,212,239 gives 2,4,31. InputError with the nearest sizes if it does not fit."""
    return dtu_shape(len(widths(depth, width, WIDTH))).output_size(input_size)


def core(width: tuple[int, ...]) -> emvision.DTU2:
    """The network between input convolution and heads."""
    return emvision.DTU2(width)


create_model = model_of(core, default=WIDTH, supervised=False)
