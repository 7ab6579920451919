"""Augmentations: how large a sample to read, and how to transform it into the patch that the network needs."""

from deepem.data.transform.base import Apply, Augment, Sample, Spec, keep, owned
from deepem.data.transform.blurry import (
    BlurrySection,
    MixedBlurrySection,
    MixedMotionBlur,
    MotionBlur,
    PartialBlurrySection,
    PartialMotionBlur,
)
from deepem.data.transform.box import BlurBox, CutBlur, FillBox, NoiseBox
from deepem.data.transform.compose import Blend, Compose
from deepem.data.transform.flip import Flip, FlipRotate, Transpose
from deepem.data.transform.grain import GaussianNoise, PoissonNoise, SaltNoise
from deepem.data.transform.grayscale import (
    Grayscale2D,
    Grayscale3D,
    GrayscaleMixed,
    MixedGrayscale2D,
    PartialGrayscale2D,
)
from deepem.data.transform.label import Label
from deepem.data.transform.lost import LostPlusMissing, LostSection
from deepem.data.transform.misalign import Misalign, MisalignPlusMissing, MisalignTrackMissing, SlipMisalign
from deepem.data.transform.missing import MissingSection, MixedMissingSection, PartialMissingSection
from deepem.data.transform.paste import CopyPaste
from deepem.data.transform.rotate import Rotate
from deepem.data.transform.section import MixedSection, PartialSection, Section
from deepem.data.transform.sharpen import Sharpen
from deepem.data.transform.tone import ContrastStep, HistogramShift
from deepem.data.transform.track import Track
from deepem.data.transform.warp import Warp

__all__ = [
    "Apply",
    "Augment",
    "Blend",
    "BlurBox",
    "BlurrySection",
    "Compose",
    "ContrastStep",
    "CopyPaste",
    "CutBlur",
    "FillBox",
    "Flip",
    "FlipRotate",
    "GaussianNoise",
    "Grayscale2D",
    "Grayscale3D",
    "GrayscaleMixed",
    "HistogramShift",
    "Label",
    "LostPlusMissing",
    "LostSection",
    "Misalign",
    "MisalignPlusMissing",
    "MisalignTrackMissing",
    "MissingSection",
    "MixedBlurrySection",
    "MixedGrayscale2D",
    "MixedMissingSection",
    "MixedMotionBlur",
    "MixedSection",
    "MotionBlur",
    "NoiseBox",
    "PartialBlurrySection",
    "PartialGrayscale2D",
    "PartialMissingSection",
    "PartialMotionBlur",
    "PartialSection",
    "PoissonNoise",
    "Rotate",
    "SaltNoise",
    "Sample",
    "Section",
    "Sharpen",
    "SlipMisalign",
    "Spec",
    "Track",
    "Transpose",
    "Warp",
    "keep",
    "owned",
]
