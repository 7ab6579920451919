"""Augmentations of samples: what is read, and how it becomes what the network asked for."""

from deepem.data.transform.base import Apply, Augment, Sample, Spec, keep
from deepem.data.transform.compose import Blend, Compose
from deepem.data.transform.flip import Flip, FlipRotate, Transpose
from deepem.data.transform.grayscale import (
    Grayscale2D,
    Grayscale3D,
    GrayscaleMixed,
    MixedGrayscale2D,
    PartialGrayscale2D,
)
from deepem.data.transform.label import Label
from deepem.data.transform.section import MixedSection, PartialSection, Section
from deepem.data.transform.warp import Warp

__all__ = [
    "Apply",
    "Augment",
    "Blend",
    "Compose",
    "Flip",
    "FlipRotate",
    "Grayscale2D",
    "Grayscale3D",
    "GrayscaleMixed",
    "Label",
    "MixedGrayscale2D",
    "MixedSection",
    "PartialGrayscale2D",
    "PartialSection",
    "Sample",
    "Section",
    "Spec",
    "Transpose",
    "Warp",
    "keep",
]
