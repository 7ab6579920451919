"""`ImageAugment`, the base class of augmentations that change the grey values of whole images and leave labels."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from deepem.data.transform.base import Apply, Augment, Sample, Spec, keep, owned, probability
from deepem.data.transform.perturb import Change, in_rows
from deepem.utils.geometry import Vec3


class ImageAugment(Augment):
    """Changes the grey values of all images of a sample with one draw; labels stay.

    Attributes:
        skip: Probability of leaving the sample unchanged.
    """

    skip: float

    def __post_init__(self) -> None:
        probability("skip", self.skip)

    def suits(self, factor: Vec3) -> bool:
        """Always: labels stay."""
        return True

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw the change, and return the request unchanged."""
        if rng.random() < self.skip or not spec.images:
            return spec, keep
        change = self.change(spec.frame(spec.images), rng)

        def apply(sample: Sample) -> Sample:
            for key in spec.images:
                sample[key] = in_rows(owned(sample[key]))
                change(sample[key])
            return sample

        return spec, apply

    @abstractmethod
    def change(self, frame: Vec3, rng: np.random.Generator) -> Change:
        """Draw the change of images that fit into `frame` (z, y, x); see `Spec.frame`."""
