"""The base class of every augmentation, and the request that it may enlarge.

An augmentation is asked two questions per sample. `prepare`: what must be read so that you can deliver this request?
The answer is a larger request and the function that turns the larger sample into the smaller one. The random numbers
of a sample are drawn from the generator that is handed in, in `prepare` or in the function, never elsewhere; nothing
is kept on the augmentation between the two halves, so one instance serves any number of samples at a time::

    network's request --prepare--> larger request --prepare--> ... --> one crop from the volume
    sample            <--apply---  larger sample  <--apply---  ... <--

Positions are given relative to the centre voxel (size // 2), which all arrays of a sample share, whatever their sizes:
that is what keeps an image of 20x160x160 and a label of 17x128x129 together. Arrays that grow by an even number of
voxels keep the same margin on both sides, whether their sizes are odd or even.
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
"""Turns the larger sample into the requested one. Arrays come as the sample's own copies or as read-only views of a
volume: whoever changes voxels in place takes `owned(array)` first. What is returned may be views too, with any strides,
so that voxels which only move are copied once, at the end, by whoever needs contiguous arrays of their own."""


@dataclass(frozen=True)
class Spec:
    """A request: which arrays, how large, and what they hold.

    All arrays of a sample share their centre voxel, size // 2.

    Attributes:
        size: (z, y, x) per key.
        images: Keys of grey-value images: interpolated, and the only ones that intensity operations touch.
        segs: Keys of instance ids; neither image nor seg are binary labels and masks. Only images are interpolated.
        factor: Voxels of all that is no image per voxel of the images, (z, y, x). Where it is not 1, an array of `n`
            voxels begins `(f m) // 2 - n // 2` of its voxels after an image of `m`.
    """

    size: Mapping[str, Vec3]
    images: tuple[str, ...] = ()
    segs: tuple[str, ...] = ()
    factor: Vec3 = (1, 1, 1)

    def resized(self, size: Mapping[str, Vec3]) -> Spec:
        """The same keys at other sizes."""
        return replace(self, size=dict(size))

    def grown(self, by: Vec3) -> Spec:
        """Every array larger by the same number of voxels per axis."""
        return self.resized({k: (z + by[0], y + by[1], x + by[2]) for k, (z, y, x) in self.size.items()})

    def of(self, key: str) -> Vec3:
        """The size of an array of the sample; one that an operation has added, `seg_split`, is as large as `seg`."""
        return self.size[key] if key in self.size else self.size[key.removesuffix(SPLIT)]

    def frame(self, keys: Iterable[str] | None = None) -> Vec3:
        """The smallest size that every array (or those of some keys) fits into: what is drawn once for all of them."""
        sizes = [self.size[k] for k in (self.size if keys is None else keys)]
        return vec3(max(axis) for axis in zip(*sizes, strict=True)) if sizes else (0, 0, 0)


SPLIT = "_split"
"""What `Label(vec=True)` appends to the key of a segmentation for its connected components."""

ALWAYS_NAMED = ("prob", "skip", "value")
"""Arguments that a repr names even where they are 0."""


class Augment(ABC):
    """An augmentation: stateless, random only through the generator it is given. Its repr is a tree of its parts."""

    @abstractmethod
    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """The request to read for `spec`, and the function that makes the sample `spec` asks for from it."""

    def check(self, spec: Spec) -> None:  # noqa: B027
        """Refuse a request that cannot be served, whatever is drawn, so that a run stops before it starts.

        Raises:
            InputError: what does not fit.
        """

    def suits(self, factor: Vec3) -> bool:
        """Whether it works where labels are finer than images by a factor. Most do not, and need not say so."""
        return factor == (1, 1, 1)

    def unsuited(self, factor: Vec3) -> list[Augment]:
        """Itself, or those of its parts, that do not work where labels are finer than images by a factor."""
        return [] if self.suits(factor) else [self]

    def lines(self) -> list[str]:
        """The lines of the repr: the name with its arguments, and below it the parts, if it is made of others.

        Options that are off by default are named where they are on.
        """
        off = {k: f.default for k, f in getattr(self, "__dataclass_fields__", {}).items()}
        named = {k: v for k, v in vars(self).items() if v or k in ALWAYS_NAMED or k not in off or v != off[k]}
        return [f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in named.items())})"]

    def __repr__(self) -> str:
        return "\n".join(self.lines())


def keep(sample: Sample) -> Sample:
    """The Apply that does nothing."""
    return sample


def owned(array: Array) -> Array:
    """The array itself if it may be written into, else a copy, in the order of C."""
    return array if array.flags.writeable else array.copy()


def probability(name: str, value: float) -> None:
    """ValueError unless the value is a probability."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: got {value}, wants a probability in [0, 1]")
