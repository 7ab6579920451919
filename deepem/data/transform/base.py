"""The base class of every augmentation, and the request that it may enlarge.

An augmentation is asked two questions per sample. `prepare`: what must be read so that you can deliver this request?
The answer is a larger request and the function that turns the larger sample into the smaller one. The random numbers
of a sample are drawn from the generator that is handed in, in `prepare` or in the function, never elsewhere; nothing
is kept on the augmentation between the two halves, so one instance serves any number of samples at a time::

    network's request --prepare--> larger request --prepare--> ... --> one crop from the volume
    sample            <--apply---  larger sample  <--apply---  ... <--
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepem.utils.geometry import Vec3

Sample = dict[str, NDArray[np.generic]]
"""Arrays (C, Z, Y, X) by key. Images are uint8 or float32 in [0, 1], instance ids int32 or int64, other labels and
masks any integer or float type."""

Apply = Callable[[Sample], Sample]
"""Turns the larger sample into the requested one. It may write into the arrays it is given: they are the sample's own
copies, never views of a volume."""


@dataclass(frozen=True)
class Spec:
    """A request: which arrays, how large, and what they hold. All arrays of a sample share their centre voxel (size // 2).

    Attributes:
        size: (z, y, x) per key.
        images: Keys of grey-value images: interpolated, and the only ones that intensity operations touch.
        segs: Keys of instance ids; neither image nor seg are binary labels and masks. Only images are interpolated.
    """

    size: Mapping[str, Vec3]
    images: tuple[str, ...] = ()
    segs: tuple[str, ...] = ()

    def resized(self, size: Mapping[str, Vec3]) -> Spec:
        """The same keys at other sizes."""
        return replace(self, size=dict(size))

    def grown(self, by: Vec3) -> Spec:
        """Every array larger by the same number of voxels per axis."""
        return self.resized({k: (z + by[0], y + by[1], x + by[2]) for k, (z, y, x) in self.size.items()})


class Augment(ABC):
    """An augmentation: stateless, random only through the generator it is given."""

    @abstractmethod
    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """The request to read for `spec`, and the function that makes the sample `spec` asks for from it."""


def keep(sample: Sample) -> Sample:
    """The Apply that does nothing."""
    return sample
