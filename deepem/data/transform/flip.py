"""Mirror and transpose axes. The results are views; `deepem.utils.contiguous` copies them where needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepem.data.transform.base import Apply, Augment, Sample, Spec, keep, probability
from deepem.utils.crop import centre_crop
from deepem.utils.geometry import Vec3, vec3


def _spatial(axis: int) -> int:
    """Convert an axis of (C, Z, Y, X), -3, -2, -1 or 1, 2, 3, to 0, 1, 2 for z, y, x."""
    if axis not in (-3, -2, -1, 1, 2, 3):
        raise ValueError(f"axis: got {axis}, wants an axis of (C, Z, Y, X) other than C: -3, -2, -1 or 1, 2, 3")
    return axis + 3 if axis < 0 else axis - 1


def _oriented(spec: Spec, flips: tuple[bool, bool, bool], order: Vec3) -> tuple[Spec, Apply]:
    """Mirror axes, then reorder them.

    All arrays of even size mirror about the same plane, and so do all arrays of odd size. An even and an odd array
    do not::

        even  0 1 2 3      mirrored  3 2 1 0      the centre voxel, 2, was at index 2 of both: now they are
        odd   0 1 2 3 4              4 3 2 1 0    one voxel apart

    So if parities differ along a mirrored axis, even arrays are read with one voxel more. If labels are finer than the
    image, a label is read with one voxel more when its parity differs from the parity of the image in label voxels.
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
    """Return the parity with which arrays are read along a mirrored axis (excluding images if labels are finer)."""
    images = [sizes[k][axis] for k in sizes if k in spec.images]
    if spec.factor[axis] > 1 and images:
        return images[0] * spec.factor[axis] % 2
    return int(any(size[axis] % 2 for size in sizes.values()))


@dataclass(frozen=True, repr=False)
class Flip(Augment):
    """Mirror one axis of every array.

    Attributes:
        axis: Axis of (C, Z, Y, X), as -3, -2, -1 or 1, 2, 3.
        prob: Probability of mirroring.
    """

    axis: int
    prob: float = 0.5

    def __post_init__(self) -> None:
        _spatial(self.axis)
        probability("prob", self.prob)

    def suits(self, factor: Vec3) -> bool:
        """Always True: axes are mirrored in the same way at any factor."""
        return True

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw whether to mirror; the request grows only if odd and even sizes meet."""
        if rng.random() >= self.prob:
            return spec, keep
        z, y, x = (a == _spatial(self.axis) for a in range(3))
        return _oriented(spec, (z, y, x), (0, 1, 2))


@dataclass(frozen=True, repr=False)
class Transpose(Augment):
    """Transpose axes of every array.

    Attributes:
        axes: New order of (C, Z, Y, X), as in numpy, C first: (0, 1, 3, 2) swaps y and x. The default reverses z, y, x.
        prob: Probability of transposing.
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
        """Whether the axes to be swapped have the same factor."""
        assert self.axes is not None
        return factor == tuple(factor[axis - 1] for axis in self.axes[1:])

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw whether to transpose; the axes of the request are transposed too."""
        assert self.axes is not None
        if rng.random() >= self.prob:
            return spec, keep
        return _oriented(spec, (False, False, False), vec3(a - 1 for a in self.axes[1:]))


@dataclass(frozen=True, repr=False)
class FlipRotate(Augment):
    """Mirror x, y and z and swap y and x, each with probability 1/2: the 16 orientations of an anisotropic volume.

    Attributes:
        isotropic: Reorder all three axes: the 48 orientations of a volume with cubic voxels.
    """

    isotropic: bool = False

    def suits(self, factor: Vec3) -> bool:
        """Whether the axes to be swapped have the same factor."""
        return len(set(factor if self.isotropic else factor[1:])) == 1

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw an orientation."""
        z, y, x, exchange = (bool(c) for c in rng.random(4) < 0.5)
        order = (0, 2, 1) if exchange else (0, 1, 2)
        return _oriented(spec, (z, y, x), vec3(rng.permutation(3)) if self.isotropic else order)
