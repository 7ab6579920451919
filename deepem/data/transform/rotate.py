"""Rotate by any angle about any axis, in physical space rather than in the voxel grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from deepem.data.transform.base import Apply, Array, Augment, Sample, Spec, keep, probability
from deepem.data.transform.field import F32
from deepem.data.transform.perturb import round_to
from deepem.utils.geometry import Vec3, vec3

F64 = NDArray[np.float64]

BLOCK = 8192
"""Number of voxels computed at a time, few enough to stay in the processor's cache."""

DECIMALS = 12
"""Round matrices to this many decimals, so that right angles are exact."""


@dataclass(frozen=True, repr=False)
class Rotate(Augment):
    """Rotate every array about the centre voxel, images trilinearly, labels and masks to the nearest voxel.

    This is for isotropic data, which look alike from all sides. All rotations are equally likely; with `max_degrees`,
    only small rotations about any axis occur. To rotate within the sections alone, use `Warp(rot_max=180)`.

    The request grows by the reach of the rotation, in z too. A volume narrower than the patch's diagonal cannot serve
    all rotations; rotations that do not fit are drawn again. If voxels are not cubes, the result shows the tissue as
    it would be recorded at that angle, but less sharply, because it interpolates between distant sections.

    Attributes:
        max_degrees: The angle is drawn from [0, max_degrees) and the axis uniformly from all directions; None draws
            uniformly from all rotations (Haar measure).
        voxel_size: (z, y, x) in any unit, since only the ratios matter. The tissue rotates, not the grid.
        scale: Range of the magnification, drawn log-uniformly.
        skip: Probability of leaving the sample unchanged.
    """

    max_degrees: float | None = None
    voxel_size: tuple[float, float, float] = (1, 1, 1)
    scale: tuple[float, float] = (1, 1)
    skip: float = 0

    def __post_init__(self) -> None:
        probability("skip", self.skip)
        if self.max_degrees is not None and not 0 < self.max_degrees <= 180:
            raise ValueError(f"max_degrees: got {self.max_degrees}, wants an angle in (0, 180], or None for any")
        if len(self.voxel_size) != 3 or min(self.voxel_size) <= 0:
            raise ValueError(f"voxel_size: got {self.voxel_size}, wants three positive numbers, z, y, x")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale: got {self.scale}, wants a range of positive factors")

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw a rotation; return the request for the voxels that it reads, which may be smaller along an axis."""
        return (spec, keep) if rng.random() < self.skip else rotate(spec, self.matrix(rng))

    def matrix(self, rng: np.random.Generator) -> F64:
        """Draw the 3x3 matrix that maps offsets (z, y, x) in the result to the offsets to read from."""
        turn = _quaternion(rng.standard_normal(4)) if self.max_degrees is None else self._small(rng)
        scale = np.exp(rng.uniform(*np.log(self.scale)))
        side = np.array(self.voxel_size)
        matrix: F64 = turn * side / side[:, None] / scale
        return matrix

    def _small(self, rng: np.random.Generator) -> F64:
        """Draw a rotation by a limited angle about an axis of any direction."""
        axis = rng.standard_normal(3)
        half = np.deg2rad(rng.uniform(0, self.max_degrees or 0)) / 2
        return _quaternion(np.array([np.cos(half), *(np.sin(half) * axis / np.linalg.norm(axis))]))


def _quaternion(q: F64) -> F64:
    """Return the rotation matrix of a quaternion of any length; normal numbers give uniformly random rotations.

    K. Shoemake, Uniform random rotations, Graphics Gems III, 1992.
    """
    w, a, b, c = q / np.linalg.norm(q)
    cross = np.array([[0, -c, b], [c, 0, -a], [-b, a, 0]])
    turn: F64 = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    return turn


def rotate(spec: Spec, matrix: F64) -> tuple[Spec, Apply]:
    """Resample every array: the voxel at offset o (z, y, x) from the centre is read at offset `matrix` @ o."""
    matrix = np.round(matrix, DECIMALS)
    request = spec.resized({k: _reach(matrix, n, k in spec.images) for k, n in spec.size.items()})

    def apply(sample: Sample) -> Sample:
        indices: dict[tuple[Vec3, ...], Array] = {}
        return {key: read(key, array, indices) for key, array in sample.items()}

    def read(key: str, array: Array, indices: dict[tuple[Vec3, ...], Array]) -> Array:
        size = spec.of(key)
        out: Array = np.empty((len(array), *size), array.dtype)
        for channel, turned in zip(array, out, strict=True):
            if key in spec.images:
                _linear(channel, matrix, turned)
                continue
            flat, steps = _flat(channel)
            alike = (size, vec3(channel.shape), steps)
            if alike not in indices:  # labels and masks of equal size share an index
                indices[alike] = _index(matrix, *alike)
            np.take(flat, indices[alike], out=turned, mode="clip")  # in range: "clip" writes directly
        return out

    return request, apply


def _offsets(n: int) -> F64:
    """Return the positions of an axis's voxels relative to its centre voxel."""
    return np.arange(-(n // 2), n - n // 2, dtype=np.float64)


def _reach(matrix: F64, size: Vec3, between: bool) -> Vec3:
    """Return the smallest size that contains every voxel to be read: all neighbours if `between`, else the nearest.

    Positions are monotonic in each coordinate, even with the rounding of `_blocks`, so checking the corners is exact.
    """
    z, y, x = np.meshgrid(*(_offsets(n)[[0, -1]] for n in size), indexing="ij")
    reach = []
    for m in matrix:
        at = m[1] * y + m[2] * x + m[0] * z
        low, high = (np.floor(at.min()), np.ceil(at.max())) if between else (np.rint(at.min()), np.rint(at.max()))
        reach.append(max(-2 * int(low), 2 * int(high) + 1))
    return vec3(reach)


def _blocks(matrix: F64, size: Vec3) -> Iterator[tuple[int, slice, list[F64]]]:
    """Yield the positions (z, y, x) relative to the centre from which to read some rows of a section.

    The arrays are reused. Positions in consecutive sections differ by a constant step.
    """
    rows = max(1, BLOCK // size[2])
    y, x = _offsets(size[1])[:, None], _offsets(size[2])[None]
    for first in range(0, size[1], rows):
        part = slice(first, first + rows)
        plane = [m[1] * y[part] + m[2] * x for m in matrix]
        at = [np.empty_like(p) for p in plane]
        for section, z in enumerate(_offsets(size[0])):
            for m, p, a in zip(matrix, plane, at, strict=True):
                np.add(p, m[0] * z, out=a)
            yield section, part, at


def _flat(volume: Array) -> tuple[Array, Vec3]:
    """Return the memory of a volume (Z, Y, X) as a flat view, and the strides along z, y and x in elements."""
    item = volume.itemsize
    if any(s <= 0 or s % item for s in volume.strides):
        volume = np.ascontiguousarray(volume)
    steps = vec3(s // item for s in volume.strides)
    length = 1 + sum(s * (n - 1) for s, n in zip(steps, volume.shape, strict=True))
    return as_strided(volume, (length,), (item,), writeable=False), steps


def _to_index(whole: list[F64], read: Vec3, steps: Vec3, out: Array) -> None:
    """Convert integer offsets from the centre to indices of the flat volume, exact to 2^53; overwrites the offsets."""
    (z, y, x), (sz, sy, sx) = whole, steps
    for offset, step in ((z, sz), (y, sy), (x, sx)):
        offset *= step
    z += y
    z += x
    z += sum(n // 2 * step for n, step in zip(read, steps, strict=True))
    np.copyto(out, z, casting="unsafe")


def _index(matrix: F64, size: Vec3, read: Vec3, steps: Vec3) -> Array:
    """Return the index in the flat volume of the voxel nearest to each position.

    Offsets are rounded instead of array positions, so that arrays of different sizes break ties alike.
    """
    index = np.empty(size, np.intp)
    for z, part, at in _blocks(matrix, size):
        for a in at:
            np.rint(a, out=a)
        _to_index(at, read, steps, index[z, part])
    return index


def _linear(volume: Array, matrix: F64, out: Array) -> None:
    """Resample a volume (Z, Y, X) trilinearly into `out`."""
    flat, steps = _flat(volume)
    # a neighbour beyond the last voxel has weight 0, so its index may be clipped; likewise on an axis of one voxel
    near = [step if n > 1 else 0 for step, n in zip(steps, volume.shape, strict=True)]
    corners = [flat[z + y + x :] for z in (0, near[0]) for y in (0, near[1]) for x in (0, near[2])]
    for z, part, at in _blocks(matrix, vec3(out.shape)):
        low = [np.floor(a) for a in at]
        along_z, along_y, along_x = (np.subtract(a, b).astype(np.float32) for a, b in zip(at, low, strict=True))
        index = np.empty(low[0].shape, np.intp)
        _to_index(low, vec3(volume.shape), steps, index)
        grey: Any = [np.take(corner, index, mode="clip").astype(np.float32, copy=False) for corner in corners]
        for weight in (along_x, along_y, along_z):
            grey = [_between(a, b, weight) for a, b in zip(grey[::2], grey[1::2], strict=True)]
        out[z, part] = round_to(grey[0], out.dtype)


def _between(a: F32, b: F32, weight: F32) -> F32:
    """Return a (1 - weight) + b weight; overwrites both arrays."""
    b -= a
    b *= weight
    a += b
    return a
