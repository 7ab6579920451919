"""Deform sections smoothly: rotation, shear, scale, stretch, twist along z, and elastic displacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from deepem.data.transform.base import Apply, Array, Augment, Sample, Spec, keep, probability
from deepem.data.transform.field import F32, Field, Reader, offsets
from deepem.data.transform.perturb import in_rows
from deepem.utils.geometry import Vec3


@dataclass(frozen=True, repr=False)
class Warp(Augment):
    """Deform the sections of every array in plane, images bilinearly, labels and masks to the nearest voxel.

    A voxel (y, x) of the result, relative to the centre voxel, is read at::

        stretched = (y (1 + s_left .. s_right along x), x (1 + s_top .. s_bottom along y)) + elastic displacement
        position  = rotation(rot + twist * z / (depth / 2)) @ shear @ stretched / scale

    A scale below 1 therefore shows more tissue at a smaller size. The request grows by what is read beyond its borders.

    Attributes:
        skip: Probability of leaving the sample unchanged.
        rot_max: The rotation in degrees is rot_max * U[0, 1); flips provide the other sign. With twist, it is at most
            rot_max - |twist|.
        shear_max: The shear angle in degrees is shear_max * U[-1, 1).
        scale_max: The scale is 1 - (scale_max - 1) * U[0, 1), the same in y and x.
        stretch_max: Each of the four sides of the field is stretched by its own fraction, stretch_max * U[-1, 1).
        do_twist: Rotate each section by a different angle, from rot - twist to rot + twist along z, with twist
            rot_max * U[-1, 1).
        rot, shear, scale, stretch, twist: Fixed values instead of random ones; stretch is (left, right, top, bottom).
        elastic_max: The elastic displacement in voxels is elastic_max * U[-1, 1) at the points of a grid, and smooth
            between them.
        elastic_grid: Spacing of that grid in voxels, at least 4 elastic_max, so that the tissue does not fold over.
        nearest: Also read images at the nearest voxel.
    """

    skip: float = 0
    rot_max: float = 15.0
    shear_max: float = 3.0
    scale_max: float = 1.1
    stretch_max: float = 0.1
    do_twist: bool = True
    rot: float | None = None
    shear: float | None = None
    scale: float | None = None
    stretch: Sequence[float] | None = None
    twist: float | None = None
    elastic_max: float = 0.0
    elastic_grid: int = 64
    nearest: bool = False

    def __post_init__(self) -> None:
        probability("skip", self.skip)
        if not 1 <= self.scale_max < 2:
            raise ValueError(f"scale_max: got {self.scale_max}, wants 1 or more and less than 2")
        if self.scale is not None and self.scale <= 0:
            raise ValueError(f"scale: got {self.scale}, wants a positive number")
        if not 0 <= self.stretch_max < 0.5 or max(map(abs, self.stretch or [0])) >= 0.5:
            raise ValueError(f"stretch: got {self.stretch or self.stretch_max}, wants less than half of a side")
        if self.stretch is not None and len(self.stretch) != 4:
            raise ValueError(f"stretch: got {self.stretch}, wants four fractions")
        if self.elastic_max < 0 or self.elastic_grid < max(4 * self.elastic_max, 2):
            raise ValueError(
                f"elastic_grid: got {self.elastic_grid}, wants 4 elastic_max = {4 * self.elastic_max} or more"
            )

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw a deformation; the request grows by its reach in y and x, never in z."""
        if rng.random() < self.skip:
            return spec, keep
        frame = spec.frame()
        fields = self.fields(frame, rng)
        size = {}
        for key, (z, y, x) in spec.size.items():
            reach = [f.centre((y, x)).reach() for f in fields]
            size[key] = (z, max(y, max(r[0] for r in reach)), max(x, max(r[1] for r in reach)))

        def apply(sample: Sample) -> Sample:
            readers: dict[tuple[int, ...], Reader] = {}
            return {key: self._read(array, key, spec, fields, readers) for key, array in sample.items()}

        return spec.resized(size), apply

    def fields(self, frame: Vec3, rng: np.random.Generator) -> list[Field]:
        """Draw the deformation of a frame of this size: one field, or with twist one field per section."""
        r = rng.random(4)
        twist = (self.rot_max * (2 * r[0] - 1) if self.do_twist else 0.0) if self.twist is None else self.twist
        rot = self.rot_max * r[1]
        if self.do_twist:
            rot = min(rot, self.rot_max - abs(twist))
        rot = rot if self.rot is None else self.rot
        shear = self.shear_max * (2 * r[2] - 1) if self.shear is None else self.shear
        scale = 1 - (self.scale_max - 1) * r[3] if self.scale is None else self.scale
        stretch = rng.uniform(-self.stretch_max, self.stretch_max, 4).tolist() if self.stretch is None else self.stretch
        y, x = _stretched(frame, stretch)
        if self.elastic_max:
            dy, dx = self._elastic(frame, rng)
            y, x = y + dy, x + dx
        depth = frame[0] if twist else 1
        middle = max(depth / 2, 1)
        return [_turned(y, x, rot + twist * (z - depth // 2) / middle, shear, scale) for z in range(depth)]

    def _elastic(self, frame: Vec3, rng: np.random.Generator) -> tuple[F32, F32]:
        """Draw the displacement of a frame: random at the points of a grid, cubic interpolation between them."""
        _, rows, cols = frame
        grid = [n // self.elastic_grid + 2 for n in (rows, cols)]
        points = rng.uniform(-self.elastic_max, self.elastic_max, (2, *grid)).astype(np.float32)
        tall, wide = ((n - 1) * self.elastic_grid for n in grid)
        y, x = (cv2.resize(p, (wide, tall), interpolation=cv2.INTER_CUBIC)[:rows, :cols] for p in points)
        return y, x

    def _read(
        self, array: Array, key: str, spec: Spec, fields: list[Field], readers: dict[tuple[int, ...], Reader]
    ) -> Array:
        """Deform an array of the sample; arrays of equal size share their readers."""
        array = in_rows(array)
        size, read = spec.of(key), (array.shape[-2], array.shape[-1])
        out: Array = np.empty((array.shape[0], *size), array.dtype)
        first = (spec.frame()[0] // 2 - size[0] // 2) if len(fields) > 1 else 0
        for z in range(size[0]):
            number = first + z if len(fields) > 1 else 0
            name = (number, size[1], size[2], *read)
            if name not in readers:
                readers[name] = Reader(fields[number].centre(size[1:]), read)
            reader = readers[name]
            into = reader.linear if key in spec.images and not self.nearest else reader.nearest
            for channel in range(len(array)):
                into(array[channel, z], out[channel, z])
        return out


def _stretched(frame: Vec3, stretch: Sequence[float]) -> tuple[F32, F32]:
    """Return the voxel positions of a frame whose four sides are stretched, each about its middle."""
    left, right, top, bottom = (float(s) for s in stretch)
    v, u = offsets(frame[1])[:, None], offsets(frame[2])[None]
    along_v, along_u = v / max(frame[1] / 2, 1), u / max(frame[2] / 2, 1)  # -1 at one side, 1 at the other
    y = v * (1 + (left + right) / 2 + (right - left) / 2 * along_u)
    x = u * (1 + (top + bottom) / 2 + (bottom - top) / 2 * along_v)
    return y, x


def _turned(y: F32, x: F32, rot: float, shear: float, scale: float) -> Field:
    """Shear positions along x, rotate them by an angle in degrees, and divide them by the scale."""
    angle, slant = np.deg2rad(rot), np.tan(np.deg2rad(shear))
    c, s = np.cos(angle) / scale, np.sin(angle) / scale
    # rotation [[c, s], [-s, c]] times shear [[1, 0], [slant, 1]] on (y, x)
    m = np.array([[c + s * slant, s], [-s + c * slant, c]], np.float32)
    return Field(m[0, 0] * y + m[0, 1] * x, m[1, 0] * y + m[1, 1] * x)
