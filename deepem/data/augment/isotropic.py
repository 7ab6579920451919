"""Isotropic volumes, as FIB-SEM records them: tissue that looks alike from all sides, no sections lost or shifted."""

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
    """All 48 poses; in training also grey values of the whole patch, and what the flags ask for.

    Args:
        is_train: training or validation
        recompute: give pieces of an instance that the patch cuts apart ids of their own
        rotate: half of the patches at any angle in space; wants a volume as wide as the patch's diagonal
        elastic: displace the tissue smoothly by a few voxels
        noise: grain of the recording, or sharper than it was
        box: boxes of noise, or of one grey value
    """
    return Compose(
        [
            Rotate(skip=0.5) if is_train and rotate else None,  # the other half is not interpolated, as in prediction
            _elastic() if is_train and elastic else None,
            Grayscale3D() if is_train else None,
            _noise() if is_train and noise else None,  # behind what interpolates: grain is finer than that
            FlipRotate(isotropic=True),
            _boxes(box) if is_train else None,
            Label() if recompute else None,
        ]
    )


def _noise() -> Augment:
    """One of three for the whole patch, or none: a FIB-SEM's settings do not change from section to section."""
    return Blend(
        [
            GaussianNoise(0.05, individual=False),
            PoissonNoise((100, 1000), individual=False),
            Sharpen(individual=False),
            None,
        ]
    )


def _boxes(kind: str | None) -> Augment | None:
    """Cubes of noise or of one grey value, or none."""
    if kind is None:
        return None
    if kind == "noise":
        return NoiseBox((5, 25), sigma=(1, 3), aniso=1, density=0.2, skip=0.3)
    return FillBox((5, 25), aniso=1, density=0.2, skip=0.3)


def _elastic() -> Augment:
    """Displacement in the plane of the sections, which the poses then turn into any of the three."""
    return Warp(
        skip=0.3, rot_max=0, shear_max=0, scale_max=1, stretch_max=0, do_twist=False, elastic_max=5, elastic_grid=40
    )
