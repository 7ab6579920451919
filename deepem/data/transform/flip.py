"""Mirroring and exchanging axes: views, copied by whoever needs them in order (`deepem.utils.contiguous`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepem.data.transform.base import Apply, Augment, Sample, Spec, keep, probability
from deepem.utils.crop import centre_crop
from deepem.utils.geometry import Vec3, vec3


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

    So where parities differ along a mirrored axis, even ones are read with an odd number of voxels. Of labels that are
    finer, those are read with one voxel more whose parity is not that of the image in their voxels.
    """
    inverse = vec3(np.argsort(order))
    sizes = {k: vec3(size[i] for i in inverse) for k, size in spec.size.items()}
    request = {k: list(size) for k, size in sizes.items()}
    for axis in (axis for axis, flip in enumerate(flips) if flip):
        parity = _parity(spec, sizes, axis)
        for k in sizes:
            request[k][axis] += (spec.factor[axis] == 1 or k not in spec.images) and sizes[k][axis] % 2 != parity
    grown = spec.resized({k: vec3(size) for k, size in request.items()})
    mirror = (slice(None), *(slice(None, None, -1 if f else 1) for f in flips))
    axes = (0, *(a + 1 for a in order))

    def apply(sample: Sample) -> Sample:
        turned = {k: a[mirror].transpose(axes) for k, a in sample.items()}
        return turned if grown.size == sizes else {k: centre_crop(a, spec.of(k)) for k, a in turned.items()}

    return grown, apply


def _parity(spec: Spec, sizes: dict[str, Vec3], axis: int) -> int:
    """The parity that every array is read with along a mirrored axis, images aside where labels are finer."""
    images = [sizes[k][axis] for k in sizes if k in spec.images]
    if spec.factor[axis] > 1 and images:
        return images[0] * spec.factor[axis] % 2
    return int(any(size[axis] % 2 for size in sizes.values()))


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

    def suits(self, factor: Vec3) -> bool:
        """Always."""
        return True

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

    def suits(self, factor: Vec3) -> bool:
        """Where the axes that it exchanges have the same factor."""
        assert self.axes is not None
        return factor == tuple(factor[axis - 1] for axis in self.axes[1:])

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw whether; the request has its axes exchanged."""
        assert self.axes is not None
        if rng.random() >= self.prob:
            return spec, keep
        return _oriented(spec, (False, False, False), vec3(a - 1 for a in self.axes[1:]))


@dataclass(frozen=True, repr=False)
class FlipRotate(Augment):
    """Mirror x, y and z and exchange y and x, each half of the time: the 16 poses of an anisotropic volume.

    Attributes:
        isotropic: Put all three axes into any order: the 48 poses of a volume whose voxels are cubes.
    """

    isotropic: bool = False

    def suits(self, factor: Vec3) -> bool:
        """Where the axes that it exchanges have the same factor."""
        return len(set(factor if self.isotropic else factor[1:])) == 1

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw a pose."""
        z, y, x, exchange = (bool(c) for c in rng.random(4) < 0.5)
        order = (0, 2, 1) if exchange else (0, 1, 2)
        return _oriented(spec, (z, y, x), vec3(rng.permutation(3)) if self.isotropic else order)
