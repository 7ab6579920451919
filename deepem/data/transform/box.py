"""Boxes in which the image is filled, blurred, made coarser or replaced by noise. Labels and masks stay."""

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
    """Perturb random boxes of the images; labels stay. All images of a sample are changed alike.

    Boxes are added, wherever they may lie, until together they have more than density * U[0, 1) of the image's voxels,
    at least one. A box may reach beyond the image.

    Args:
        perturb: What happens in a box, made with `params`.
        dims: Range of its sides in y and x, in voxels, both ends included; each is drawn on its own.
        aniso: In z it is shorter by this factor, one section at least.
        density: The largest share of the image in boxes, counted with overlaps.
        margin: (z, y, x) voxels that the centre of a box keeps from the image's border.
        individual: Each box draws its own parameters; otherwise all share one draw.
        skip: How often nothing happens.
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
        """Always: labels stay."""
        return True

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw whether; the request stays as it is. Boxes are drawn when they are painted."""
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
        """Begins and ends of the boxes in an image, (N, 3), relative to its centre voxel."""
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
        """All arguments."""
        given = {f.name: getattr(self.perturb, f.name) for f in fields(self.perturb) if f.repr}  # type: ignore[arg-type]
        given |= {k: v for k, v in vars(self).items() if k != "perturb"}
        return [f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in given.items())})"]


class FillBox(Box):
    """Boxes of one grey value: `value`, or with `random` drawn from [0, 1); arguments of `Box`."""

    def __init__(self, dims: tuple[int, int] = (10, 30), value: float = 0, random: bool = True, **box: Any) -> None:
        super().__init__(Fill, dims, value=value, random=random, **box)


class BlurBox(Box):
    """Boxes blurred by a Gaussian of `sigma` voxels, or with `random` drawn from [0, sigma); arguments of `Box`."""

    def __init__(self, dims: tuple[int, int] = (10, 30), sigma: float = 5.0, random: bool = True, **box: Any) -> None:
        super().__init__(SmallBlur, dims, sigma=sigma, random=random, **box)


class CutBlur(Box):
    """Boxes at lower resolution, by a factor from a range in y and x, `isotropic`: in z too; arguments of `Box`.

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
    """Boxes of blurred normal noise, as coarse as cells or as fine as texture; arguments of `Box`.

    The noise of a section has mean 0.5 and standard deviation 0.25, clipped to [0, 1], blurred by a Gaussian whose
    width is drawn from the range `sigma`, in voxels. Windows of a few noise images, made anew for each sample, serve
    all of its boxes: of widths that part the range evenly, at random places.
    """

    def __init__(self, dims: tuple[int, int] = (10, 30), sigma: tuple[float, float] = (2, 5), **box: Any) -> None:
        super().__init__(Noise, dims, sigma=sigma, side=dims[1], **box)
