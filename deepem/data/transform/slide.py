"""Read sections at shifted positions: the common code of all misalignments.

Every section of a sample has a position (y, x) at which its centre is read, relative to the centre voxel::

        x ->                         x ->
    z   [      ======     ]      z   [   ======        ]      a slip: one section is shifted
    |   [      ======     ]      |   [   ======        ]
        [          ====== ]          [       ======    ]
        [          ====== ]          [   ======        ]
        a misalignment: all sections from one on are shifted

Only sections that are not at the most common position are moved, in place if the array is writeable. The result is a
view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deepem.data.transform.base import Apply, Array, Sample, Spec, owned
from deepem.data.transform.field import F32, Field, Reader, offsets
from deepem.data.transform.perturb import in_rows
from deepem.utils.geometry import Vec3, vec3


@dataclass(frozen=True)
class Pose:
    """Where to read a section: its centre (y, x) relative to the centre voxel, and its rotation in degrees."""

    y: int = 0
    x: int = 0
    rot: float = 0

    def field(self, size: Vec3) -> Field:
        """Return the field of positions for a section of this size."""
        c, s = (np.float32(f(np.deg2rad(self.rot))) for f in (np.cos, np.sin))
        v, u = offsets(size[1])[:, None], offsets(size[2])[None]
        y: F32 = c * v + s * u + np.float32(self.y)
        x: F32 = -s * v + c * u + np.float32(self.x)
        return Field(y, x)

    def growth(self, size: Vec3) -> tuple[int, int]:
        """Return the even number of voxels (y, x) by which the source must be larger than a section of this size."""
        if not self.rot:
            return 2 * abs(self.y), 2 * abs(self.x)
        y, x = self.field(size).reach()
        return max(y - size[1] + size[1] % 2, 0), max(x - size[2] + size[2] % 2, 0)


def between(start: Pose, end: Pose, fraction: float) -> Pose:
    """Interpolate between two poses, rounded to whole voxels."""
    return Pose(
        start.y + round((end.y - start.y) * fraction),
        start.x + round((end.x - start.x) * fraction),
        start.rot + (end.rot - start.rot) * fraction,
    )


def slide(spec: Spec, images: Sequence[Pose], labels: Sequence[Pose]) -> tuple[Spec, Apply]:
    """Read each section at its pose; images and the other arrays have separate lists, with one pose per section."""
    poses = {*images, *labels}
    size = {}
    for key, (z, y, x) in spec.size.items():
        grow = [p.growth((z, y, x)) for p in poses]
        size[key] = (z, y + max(g[0] for g in grow), x + max(g[1] for g in grow))
    depth = spec.frame()[0]

    def apply(sample: Sample) -> Sample:
        readers: dict[tuple[Pose, Vec3], Reader] = {}
        return {key: move(array, key, readers) for key, array in sample.items()}

    def move(array: Array, key: str, readers: dict[tuple[Pose, Vec3], Reader]) -> Array:
        array, n = in_rows(array), spec.of(key)
        own = (images if key in spec.images else labels)[depth // 2 - n[0] // 2 :][: n[0]]
        usual = Counter(p for p in own if not p.rot).most_common(1)
        rest = usual[0][0] if usual else Pose()
        view = _window(array, rest, n)
        if all(pose == rest for pose in own):
            return view
        view = owned(view)
        for z, pose in enumerate(own):
            if pose.rot:
                if (pose, n) not in readers:
                    readers[pose, n] = Reader(pose.field(n), (array.shape[-2], array.shape[-1]))
                into = readers[pose, n].linear if key in spec.images else readers[pose, n].nearest
                for channel in range(len(array)):
                    turned = np.empty(n[1:], array.dtype)
                    into(array[channel, z], turned)
                    view[channel, z] = turned
            elif pose != rest:
                view[:, z] = _window(array, pose, n)[:, z]
        return view

    return spec.resized(size), apply


def _window(array: Array, pose: Pose, size: Vec3) -> Array:
    """Return a view of an array whose sections are read at a pose without rotation."""
    y, x = (m // 2 + p - n // 2 for m, n, p in zip(array.shape[-2:], size[1:], (pose.y, pose.x), strict=True))
    return array[..., y : y + size[1], x : x + size[2]]


def lose(spec: Spec, nsec: int, at: int) -> tuple[Spec, Apply]:
    """Remove `nsec` sections before the section `at` (relative to the centre voxel) from every array."""
    before = nsec // 2
    request = spec.grown((nsec + nsec % 2, 0, 0))

    def apply(sample: Sample) -> Sample:
        return {key: _close_gap(array, spec.of(key), nsec, at, before) for key, array in sample.items()}

    return request, apply


def _close_gap(array: Array, size: Vec3, nsec: int, at: int, before: int) -> Array:
    """Remove `nsec` sections by moving the smaller side; the array begins `before` sections ahead of the result."""
    depth = vec3(size)[0]
    low = array.shape[1] // 2 - depth // 2 - before
    high = low + nsec
    gap = min(max(at + depth // 2, 0), depth)
    if not array.flags.writeable:
        return np.concatenate([array[:, low : low + gap], array[:, high + gap : high + depth]], axis=1)
    if gap < depth - gap:
        for z in reversed(range(gap)):
            array[:, high + z] = array[:, low + z]
        return array[:, high : high + depth]
    for z in range(gap, depth):
        array[:, low + z] = array[:, high + z]
    return array[:, low : low + depth]
