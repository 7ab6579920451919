"""Fill, blur, coarsen or replace by noise random boxes of the image; labels and masks stay unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.transform.base import Apply, Augment, Sample, Spec, keep, owned, probability
from deepem.data.transform.coarse import Coarse
from deepem.data.transform.noise import Noise
from deepem.data.transform.perturb import Fill, Perturb, in_rows
from deepem.data.transform.smallblur import SmallBlur
from deepem.utils.geometry import Vec3


class Box(Augment):
    """Perturb random boxes of the images; labels stay unchanged, and all images of a sample change alike.

    Boxes are added at random places, at least one, until together they have more than density * U[0, 1) of the image's
    voxels. A box may extend beyond the image.

    Args:
        perturb: Class of the perturbation applied in each box, constructed with `params`.
        dims: Range of the box's sides in y and x, in voxels, both ends included; each side is drawn separately.
        aniso: The box is shorter in z by this factor, but at least one section.
        density: Largest fraction of the image's voxels in boxes; overlaps count twice.
        margin: Minimum distance (z, y, x) in voxels between the centre of a box and the image's border.
        individual: Draw parameters for each box; otherwise all boxes share one draw.
        skip: Probability of leaving the sample unchanged.
    """

    def __init__(
        self,
        perturb: Callable[..., Perturb],
        dims: tuple[int, int] = (10, 30),
        aniso: float = 10,
        density: float = 0.5,
        margin: Vec3 = (0, 0, 0),
        individual: bool = True,
        skip: float = 0,
        **params: Any,
    ) -> None:
        probability("skip", skip)
        probability("density", density)
        if not 1 <= dims[0] <= dims[1]:
            raise ValueError(f"dims: got {dims}, wants a range of voxels from 1 up")
        if aniso <= 0 or min(margin) < 0:
            raise ValueError(f"aniso, margin: got {aniso}, {margin}, wants a positive factor and no negative voxels")
        self.perturb = perturb(**params)
        self.dims, self.aniso, self.density, self.margin = dims, aniso, density, margin
        self.individual, self.skip = individual, skip

    def suits(self, factor: Vec3) -> bool:
        """Always True: labels do not change."""
        return True

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw whether to act, and return the request unchanged; the boxes are drawn when they are painted."""
        if not spec.images or rng.random() < self.skip:
            return spec, keep
        frame = spec.frame(spec.images)
        begin, end = self.boxes(frame, rng)

        def apply(sample: Sample) -> Sample:
            change = self.perturb.draw_many(len(begin) if self.individual else 1, rng)
            for key in spec.images:
                image = sample[key] = in_rows(owned(sample[key]))
                size = np.array(image.shape[1:])
                low, high = (begin + size // 2).clip(0), np.minimum(end + size // 2, size)
                inside = np.flatnonzero((low < high).all(1))
                for i, (z, y, x), (z1, y1, x1) in zip(
                    inside.tolist(), low[inside].tolist(), high[inside].tolist(), strict=True
                ):
                    change(i if self.individual else 0, image[:, z:z1, y:y1, x:x1])
            return sample

        return spec, apply

    def boxes(self, frame: Vec3, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the begins and ends of the boxes in an image, (N, 3) each, relative to its centre voxel."""
        size = np.array(frame)
        goal = self.density * rng.random() * size.prod()
        sides = np.zeros((0, 3), np.int64)
        while len(sides) == 0 or sides.prod(1).sum() <= goal:
            more = rng.integers(self.dims[0], self.dims[1] + 1, (64, 3))
            more[:, 0] = np.rint(more[:, 0] / self.aniso).clip(1)
            sides = np.concatenate([sides, more])
        sides = sides[: np.searchsorted(sides.prod(1).cumsum(), goal, side="right") + 1]
        margin = np.minimum(self.margin, (size - 1) // 2)
        begin = rng.integers(margin, size - margin, sides.shape) - sides // 2 - size // 2
        return begin, begin + sides

    def lines(self) -> list[str]:
        """Return all arguments, for the repr."""
        given = {f.name: getattr(self.perturb, f.name) for f in fields(self.perturb) if f.repr}  # type: ignore[arg-type]
        given |= {k: v for k, v in vars(self).items() if k != "perturb"}
        return [f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items())})"]


class FillBox(Box):
    """Fill boxes with the grey value `value`, or with `random` one drawn from [0, 1). Other arguments: see `Box`."""

    def __init__(self, dims: tuple[int, int] = (10, 30), value: float = 0, random: bool = True, **box: Any) -> None:
        super().__init__(Fill, dims, value=value, random=random, **box)


class BlurBox(Box):
    """Blur boxes with a Gaussian of `sigma` voxels (`random`: drawn from [0, sigma)). Other arguments: see `Box`."""

    def __init__(self, dims: tuple[int, int] = (10, 30), sigma: float = 5.0, random: bool = True, **box: Any) -> None:
        super().__init__(SmallBlur, dims, sigma=sigma, random=random, **box)


class CutBlur(Box):
    """Lower the resolution in boxes by a factor drawn from a range, in y and x (`isotropic`: also z); see `Box`.

    J. Yoo, N. Ahn and K.-A. Sohn, Rethinking data augmentation for image super-resolution, CVPR 2020.
    """

    def __init__(
        self,
        dims: tuple[int, int] = (16, 64),
        factor: tuple[float, float] = (2.0, 4.0),
        isotropic: bool = False,
        **box: Any,
    ) -> None:
        super().__init__(Coarse, dims, factor=factor, isotropic=isotropic, **box)


class NoiseBox(Box):
    """Replace boxes with blurred normal noise, as coarse as cells or as fine as texture; arguments of `Box`.

    The noise of a section has mean 0.5 and standard deviation 0.25, clipped to [0, 1], and is blurred by a Gaussian
    whose width is drawn from the range `sigma`, in voxels. To save time, each sample makes a few noise images, with
    widths spaced evenly over the range, and every box shows a random window of one of them.
    """

    def __init__(self, dims: tuple[int, int] = (10, 30), sigma: tuple[float, float] = (2, 5), **box: Any) -> None:
        super().__init__(Noise, dims, sigma=sigma, side=dims[1], **box)
