"""A recipe for isotropic volumes (FIB-SEM): tissue looks alike from all sides, and no sections are lost or shifted."""

from __future__ import annotations

from typing import Literal

from deepem.data.transform import (
    Augment,
    Blend,
    Compose,
    FillBox,
    FlipRotate,
    GaussianNoise,
    Grayscale3D,
    Label,
    NoiseBox,
    PoissonNoise,
    Rotate,
    Sharpen,
    Warp,
)


def get_augmentation(
    is_train: bool,
    *,
    recompute: bool = False,
    rotate: bool = False,
    elastic: bool = False,
    noise: bool = False,
    box: Literal["noise", "fill"] | None = None,
) -> Augment:
    """Draw one of 48 orientations; in training, also change grey values and apply what the flags switch on.

    Args:
        is_train: training or validation
        recompute: relabel the pieces of instances that the patch cuts apart
        rotate: rotate half of the patches by any angle in space; the volume must be as wide as the patch's diagonal
        elastic: displace the tissue smoothly by a few voxels
        noise: add acquisition noise, or sharpen
        box: fill boxes with noise or with one grey value
    """
    return Compose(
        [
            Rotate(skip=0.5) if is_train and rotate else None,  # the rest is not interpolated, as in prediction
            _elastic() if is_train and elastic else None,
            Grayscale3D() if is_train else None,
            _noise() if is_train and noise else None,  # after all interpolation, which would smooth the noise
            FlipRotate(isotropic=True),
            _boxes(box) if is_train else None,
            Label() if recompute else None,
        ]
    )


def _noise() -> Augment:
    """Apply one of three changes or none to the whole patch: FIB-SEM settings do not vary between sections."""
    return Blend(
        [
            GaussianNoise(0.05, individual=False),
            PoissonNoise((100, 1000), individual=False),
            Sharpen(individual=False),
            None,
        ]
    )


def _boxes(kind: str | None) -> Augment | None:
    """Fill cubes with noise or with one grey value, or leave the sample unchanged."""
    if kind is None:
        return None
    if kind == "noise":
        return NoiseBox((5, 25), sigma=(1, 3), aniso=1, density=0.2, skip=0.3)
    return FillBox((5, 25), aniso=1, density=0.2, skip=0.3)


def _elastic() -> Augment:
    """Displace the tissue within sections; the random orientation then turns this into any of the three planes."""
    return Warp(
        skip=0.3, rot_max=0, shear_max=0, scale_max=1, stretch_max=0, do_twist=False, elastic_max=5, elastic_grid=40
    )
