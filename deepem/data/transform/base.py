"""`Augment`, the base class of all augmentations, and `Spec`, the request that an augmentation may enlarge.

An augmentation works in two steps. `prepare` gets a request (the arrays and sizes to deliver) and returns a larger
request (the arrays and sizes to read) with a function that turns the larger sample into the smaller one. Random
numbers come only from the given generator, either in `prepare` or in that function. The augmentation itself keeps no
state between the two steps, so one instance can work on many samples at the same time::

    network's request --prepare--> larger request --prepare--> ... --> one crop from the volume
    sample            <--apply---  larger sample  <--apply---  ... <--

Positions are relative to the centre voxel (size // 2), which all arrays of a sample share whatever their sizes. This
keeps an image of 20x160x160 and a label of 17x128x129 aligned. An array that grows by an even number of voxels gets
the same margin on both sides, whether its size is odd or even.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.utils.geometry import Vec3, vec3

Array = NDArray[Any]

Sample = dict[str, Array]
"""Arrays (C, Z, Y, X) by key. Images are uint8 or float32 in [0, 1], instance ids int32 or int64, other labels and
masks any integer or float type."""

Apply = Callable[[Sample], Sample]
"""Turns the larger sample into the requested one. The arrays passed in may be read-only views of a volume: call
`owned(array)` before changing voxels in place. The arrays returned may be views with any strides. Code that needs
contiguous arrays copies them at the end, so that voxels which only move are copied once."""


@dataclass(frozen=True)
class Spec:
    """A request: which arrays to deliver, their sizes, and what they hold.

    All arrays of a sample share their centre voxel, size // 2.

    Attributes:
        size: (z, y, x) per key.
        images: Keys of grey-value images. Only images are interpolated, and only they change in intensity.
        segs: Keys of instance ids. Keys in neither `images` nor `segs` are other labels and masks.
        factor: (z, y, x) voxels of labels and masks per voxel of the images. If it is not 1, an array of `n` voxels
            begins `(f m) // 2 - n // 2` of its own voxels after an image of `m` voxels.
    """

    size: Mapping[str, Vec3]
    images: tuple[str, ...] = ()
    segs: tuple[str, ...] = ()
    factor: Vec3 = (1, 1, 1)

    def resized(self, size: Mapping[str, Vec3]) -> Spec:
        """Return this request with other sizes."""
        return replace(self, size=dict(size))

    def grown(self, by: Vec3) -> Spec:
        """Return this request with every array enlarged by the same number of voxels per axis."""
        return self.resized({k: (z + by[0], y + by[1], x + by[2]) for k, (z, y, x) in self.size.items()})

    def of(self, key: str) -> Vec3:
        """Return the size of an array; `seg_split`, which `Label` adds, has the size of `seg`."""
        return self.size[key] if key in self.size else self.size[key.removesuffix(SPLIT)]

    def frame(self, keys: Iterable[str] | None = None) -> Vec3:
        """Return the smallest size into which all arrays (or those of `keys`) fit, for draws that they share."""
        sizes = [self.size[k] for k in (self.size if keys is None else keys)]
        return vec3(max(axis) for axis in zip(*sizes, strict=True)) if sizes else (0, 0, 0)


SPLIT = "_split"
"""Suffix of the key under which `Label(vec=True)` stores the connected components of a segmentation."""

ALWAYS_NAMED = ("prob", "skip", "value")
"""Arguments that a repr shows even if they are 0."""


class Augment(ABC):
    """Base class of augmentations: stateless, with random numbers only from the given generator; its repr is a tree."""

    @abstractmethod
    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Return the request to read in order to deliver `spec`, and the function that makes `spec` from it."""

    def check(self, spec: Spec) -> None:  # noqa: B027
        """Refuse a request that no draw could serve, so that a run stops before it starts.

        Raises:
            InputError: The request does not fit; the error says what is wrong.
        """

    def suits(self, factor: Vec3) -> bool:
        """Whether labels may be finer than the images by this factor; by default only a factor of 1 is supported."""
        return factor == (1, 1, 1)

    def unsuited(self, factor: Vec3) -> list[Augment]:
        """Return the operations (itself, or those it combines) that do not support this factor; see `suits`."""
        return [] if self.suits(factor) else [self]

    def lines(self) -> list[str]:
        """Return the lines of the repr: the name with its arguments, and below it the augmentations it is composed of.

        Options that are off by default appear only when they are on.
        """
        off = {k: f.default for k, f in getattr(self, "__dataclass_fields__", {}).items()}
        named = {k: v for k, v in vars(self).items() if v or k in ALWAYS_NAMED or k not in off or v != off[k]}
        return [f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in named.items())})"]

    def __repr__(self) -> str:
        return "\n".join(self.lines())


def keep(sample: Sample) -> Sample:
    """Return the sample unchanged: the Apply that does nothing."""
    return sample


def owned(array: Array) -> Array:
    """Return the array itself if it is writeable, else a C-ordered copy."""
    return array if array.flags.writeable else array.copy()


def probability(name: str, value: float) -> None:
    """Raise ValueError unless the value is a probability."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: got {value}, wants a probability in [0, 1]")
