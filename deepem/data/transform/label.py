"""Relabel the connected components of instances that a patch has cut apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepem.data.transform.base import SPLIT, Apply, Array, Augment, Sample, Spec, owned
from deepem.utils.geometry import Vec3


@dataclass(frozen=True, repr=False)
class Label(Augment):
    """Give every connected piece of an instance its own id, 1, 2, ...; 0 stays 0, and images and masks stay unchanged.

    Two branches of a neuron that meet only outside the patch become two instances. Voxels are connected to their 26
    neighbours. The dtype of the ids stays the same.

    Attributes:
        vec: Keep the original ids and add the new ones as `<key>_split`, for losses that need both.
    """

    vec: bool = False

    def suits(self, factor: Vec3) -> bool:
        """Always True: only labels change."""
        return True

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Return the request unchanged; there is nothing to draw."""

        def apply(sample: Sample) -> Sample:
            for key in spec.segs:
                if key in sample:
                    sample[key + SPLIT * self.vec] = components(sample[key])
            return sample

        return spec, apply


def components(ids: Array) -> Array:
    """Label the connected components (26 neighbours) of equal non-zero ids per channel of (C, Z, Y, X), same dtype."""
    import cc3d

    pieces = [cc3d.connected_components(np.ascontiguousarray(owned(channel)), connectivity=26) for channel in ids]
    return np.stack(pieces).astype(ids.dtype, copy=False)
