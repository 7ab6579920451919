"""Mirroring and exchanging axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from deepem.data.transform.base import Apply, Array, Augment, Sample, Spec, keep, probability
from deepem.data.transform.perturb import in_rows
from deepem.utils.crop import centre_crop
from deepem.utils.geometry import Vec3, vec3

CV_TYPES = {1: np.uint8, 2: np.uint16, 4: np.int32, 8: np.float64}
"""For each size of voxels a type whose voxels OpenCV moves as they are, bit by bit."""


def _spatial(axis: int) -> int:
    """0, 1, 2 for z, y, x from an axis of (C, Z, Y, X): -3, -2, -1 or 1, 2, 3."""
    if axis not in (-3, -2, -1, 1, 2, 3):
        raise ValueError(f"axis: got {axis}, wants an axis of (C, Z, Y, X) other than C: -3, -2, -1 or 1, 2, 3")
    return axis + 3 if axis < 0 else axis - 1


def _oriented(spec: Spec, flips: tuple[bool, bool, bool], order: Vec3) -> tuple[Spec, Apply]:
    """Mirror axes, then put them into another order.

    Two arrays of even size mirror about the same plane, and so do two of odd size, but an even and an odd one do not::

        even  0 1 2 3      mirrored  3 2 1 0      the centre voxel, 2, was at index 2 of both: now they are
        odd   0 1 2 3 4              4 3 2 1 0    one voxel apart

    So where parities differ along a mirrored axis, even ones are read with an odd number of voxels.
    """
    inverse = vec3(np.argsort(order))
    sizes = {k: vec3(size[i] for i in inverse) for k, size in spec.size.items()}
    mixed = [f and len({s[a] % 2 for s in sizes.values()}) == 2 for a, f in enumerate(flips)]
    request = spec.resized(
        {k: vec3(n + (m and n % 2 == 0) for n, m in zip(s, mixed, strict=True)) for k, s in sizes.items()}
    )

    def apply(sample: Sample) -> Sample:
        turned = {k: _turn(a, flips, order) for k, a in sample.items()}
        return {k: centre_crop(a, spec.of(k)) for k, a in turned.items()} if any(mixed) else turned

    return request, apply


def _turn(array: Array, flips: tuple[bool, bool, bool], order: Vec3) -> Array:
    """Axes of (C, Z, Y, X) mirrored, then put into another order.

    Strides do most of it. Where rows would be read backwards or across, sections are turned by OpenCV, which is several
    times faster than numpy's copy of such a view: rows of the result lie forwards or, mirrored in y only, are whole.
    """
    mirror = (slice(None), *(slice(None, None, -1 if f else 1) for f in flips))
    axes = (0, *(a + 1 for a in order))
    as_cv = CV_TYPES.get(array.itemsize)
    if as_cv is None or order[0] != 0 or not (flips[2] or order[1] == 2):
        view: Array = array[mirror].transpose(axes)
        return view
    z_only = in_rows(array)[:, mirror[1]].view(as_cv)
    out = np.empty((*array.shape[:2], *(array.shape[a + 1] for a in order[1:])), as_cv)
    for channel, into in zip(z_only, out, strict=True):
        for plane, new in zip(channel, into, strict=True):
            _turn_plane(plane, new, flips[1], flips[2], order[1] == 2)
    turned: Array = out.view(array.dtype)
    return turned


def _turn_plane(plane: Array, out: Array, flip_y: bool, flip_x: bool, exchange: bool) -> None:
    """A section mirrored, then its axes exchanged, into `out`."""
    if not exchange:
        cv2.flip(plane, -1 if flip_y else 1, dst=out)
    elif not (flip_y or flip_x):
        cv2.transpose(plane, dst=out)
    else:  # mirrored in y before is mirrored in x after, and the other way round
        cv2.flip(cv2.transpose(plane), -1 if flip_y and flip_x else 1 if flip_y else 0, dst=out)


@dataclass(frozen=True, repr=False)
class Flip(Augment):
    """Mirror one axis of every array.

    Attributes:
        axis: Axis of (C, Z, Y, X), as -3, -2, -1 or 1, 2, 3.
        prob: How often.
    """

    axis: int
    prob: float = 0.5

    def __post_init__(self) -> None:
        _spatial(self.axis)
        probability("prob", self.prob)

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw whether; the request grows only where odd and even sizes meet."""
        if rng.random() >= self.prob:
            return spec, keep
        z, y, x = (a == _spatial(self.axis) for a in range(3))
        return _oriented(spec, (z, y, x), (0, 1, 2))


@dataclass(frozen=True, repr=False)
class Transpose(Augment):
    """Exchange axes of every array.

    Attributes:
        axes: The order of (C, Z, Y, X) afterwards, C first, as in numpy: (0, 1, 3, 2) exchanges y and x. By default
            z, y, x are reversed.
        prob: How often.
    """

    axes: Sequence[int] | None = None
    prob: float = 0.5

    def __post_init__(self) -> None:
        probability("prob", self.prob)
        axes = [0, 3, 2, 1] if self.axes is None else [a % 4 for a in self.axes]
        if sorted(axes) != [0, 1, 2, 3] or axes[0] != 0:
            raise ValueError(f"axes: got {self.axes}, wants an order of (C, Z, Y, X) with C first: 0, then 1, 2, 3")
        object.__setattr__(self, "axes", tuple(axes))

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw whether; the request has its axes exchanged."""
        assert self.axes is not None
        if rng.random() >= self.prob:
            return spec, keep
        return _oriented(spec, (False, False, False), vec3(a - 1 for a in self.axes[1:]))


@dataclass(frozen=True, repr=False)
class FlipRotate(Augment):
    """Mirror x, y and z and exchange y and x, each half of the time: the 16 poses of an anisotropic volume."""

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw a pose."""
        z, y, x, exchange = (bool(c) for c in rng.random(4) < 0.5)
        return _oriented(spec, (z, y, x), (0, 2, 1) if exchange else (0, 1, 2))
