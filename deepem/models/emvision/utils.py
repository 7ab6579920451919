"""Arithmetic on (z, y, x) triples, and centre crops and pads of feature maps (N, C, Z, Y, X)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from deepem.utils.crop import centre_crop
from deepem.utils.geometry import Vec3, vec3

Triple = int | Sequence[int]
"""A number for all three axes, or one for each of z, y, x."""


def triple(value: Triple) -> Vec3:
    """Repeat a number for z, y, x, or return three numbers unchanged; ValueError for any other count."""
    return (value, value, value) if isinstance(value, int) else vec3(value)


def sum3(*values: Triple) -> Vec3:
    """Sum of triples, axis by axis."""
    return vec3(map(sum, zip(*map(triple, values), strict=True)))


def mul3(a: Triple, b: Triple) -> Vec3:
    """Product of two triples, axis by axis."""
    return vec3(x * y for x, y in zip(triple(a), triple(b), strict=True))


def div3(a: Triple, b: Triple) -> Vec3:
    """Quotient of two triples, axis by axis, rounded down."""
    return vec3(x // y for x, y in zip(triple(a), triple(b), strict=True))


def crop3d(x: Tensor, margin: Triple) -> Tensor:
    """View without `margin` voxels at both ends of each axis."""
    z, y, x_ = (slice(m, n - m) for m, n in zip(triple(margin), x.shape[-3:], strict=True))
    return x[..., z, y, x_]


def crop3d_center(x: Tensor, ref: Triple | Tensor) -> Tensor:
    """View of the centre of x with the size of `ref`: another feature map, or (z, y, x) voxels."""
    return centre_crop(x, vec3(ref.shape[-3:]) if isinstance(ref, Tensor) else triple(ref))


def pad3d_center(x: Tensor, ref: Triple | Tensor) -> Tensor:
    """Pad x with zeros on all sides to the size of `ref`: a feature map, or (z, y, x) voxels.

    `crop3d_center` is its inverse, also if the number of voxels added is odd.
    """
    target = vec3(ref.shape[-3:]) if isinstance(ref, Tensor) else triple(ref)
    pads: list[int] = []
    for have, want in reversed(list(zip(x.shape[-3:], target, strict=True))):
        if want < have:
            raise ValueError(f"cannot pad {tuple(x.shape[-3:])} to the smaller {target}")
        front = want // 2 - have // 2
        pads += [front, want - have - front]
    return F.pad(x, pads)


def pad_size(kernel_size: Triple, mode: str) -> Vec3:
    """Zeros that a convolution pads on each side: none ('valid'), k // 2 ('same', odd kernels), k - 1 ('full')."""
    kernel = triple(kernel_size)
    if mode == "same" and any(k % 2 == 0 for k in kernel):
        raise ValueError(f"'same' needs odd kernel sizes, not {kernel}")
    modes = {"valid": (0, 0, 0), "same": div3(kernel, 2), "full": sum3(kernel, -1)}
    if mode not in modes:
        raise ValueError(f"padding mode {mode!r} is none of {', '.join(modes)}")
    return modes[mode]
