"""Connected components of instance ids, after a patch has cut instances apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepem.data.transform.base import SPLIT, Apply, Array, Augment, Sample, Spec, owned
from deepem.utils.geometry import Vec3


@dataclass(frozen=True, repr=False)
class Label(Augment):
    """Give every connected piece of an instance an id of its own, 1, 2, ...; 0 stays 0. Images and masks stay.

    Two branches of one neuron that meet only outside the patch become two instances. Voxels are connected to their 26
    neighbours. The type of the ids is kept.

    Attributes:
        vec: Keep the ids as they are and add the pieces as `<key>_split`, for losses that want both.
    """

    vec: bool = False

    def suits(self, factor: Vec3) -> bool:
        """Always: the image has no part in it."""
        return True

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Nothing is drawn; the request stays as it is."""

        def apply(sample: Sample) -> Sample:
            for key in spec.segs:
                if key in sample:
                    sample[key + SPLIT * self.vec] = components(sample[key])
            return sample

        return spec, apply


def components(ids: Array) -> Array:
    """Connected components (26 neighbours) of equal non-zero ids, per channel of (C, Z, Y, X), in the same type."""
    import cc3d

    pieces = [cc3d.connected_components(np.ascontiguousarray(owned(channel)), connectivity=26) for channel in ids]
    return np.stack(pieces).astype(ids.dtype, copy=False)
