"""Beam tracks: bright, blotchy bands that the electron beam leaves on neighbouring sections."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from deepem.data.transform.base import Array
from deepem.data.transform.field import F32
from deepem.data.transform.image_only import ImageAugment
from deepem.data.transform.perturb import Change, planes, round_to
from deepem.data.transform.region import cut, extent
from deepem.utils.geometry import Vec3


@dataclass(frozen=True, repr=False)
class Track(ImageAugment):
    """Brighten two neighbouring sections of the images in blotches within a band along y; labels stay unchanged.

    Each section has its own stencil: normal noise that is blurred, thresholded, and blurred again at its edges.

    Attributes:
        width: Width of the band along x, in voxels; the band's centre lies between 25 and 75 % of the image.
        margin: The stencil fades out over this many voxels on either side of the band.
        sigma: Blur of the noise along y and along x, and of the edges, in voxels.
        thresh: Brighten where the noise, in standard deviations, exceeds this; 0 brightens half of the band.
        skip: Probability of leaving the sample unchanged.
    """

    width: int = 120
    margin: int = 20
    sigma: tuple[float, float, float] = (15, 10, 3)
    thresh: float = 0
    skip: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= 2 * self.margin < self.width:
            raise ValueError(f"width: got {self.width}, wants more than two margins of {self.margin} voxels")
        if min(self.sigma) <= 0:
            raise ValueError(f"sigma: got {self.sigma}, wants three positive numbers of voxels")

    def change(self, frame: Vec3, rng: np.random.Generator) -> Change:
        """Draw the sections and their stencils."""
        first = int(rng.integers(max(frame[0] - 1, 1))) - frame[0] // 2
        changes = self.draw(frame, rng)
        (_, y0, x0), (_, y1, x1) = extent(frame)

        def change(image: Array) -> None:
            for z, paint in enumerate(changes, first):
                paint(cut(image, (z, y0, x0), (z + 1, y1, x1)))

        return change

    def draw(self, frame: Vec3, rng: np.random.Generator) -> list[Change]:
        """Draw the changes of two sections, which share the band and have separate stencils."""
        middle = rng.uniform(0.25, 0.75)
        strength = rng.uniform(0.3, 0.8)
        return [_paint(np.float32(strength) * self._stencil(frame, middle, rng)) for _ in range(2)]

    def _stencil(self, frame: Vec3, middle: float, rng: np.random.Generator) -> F32:
        """Draw the stencil of a section: how far each voxel moves towards white, 0 to 1."""
        _, rows, cols = frame
        along_y, along_x, edge = self.sigma
        noise = rng.standard_normal((rows, self.width), np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=along_x, sigmaY=along_y)
        blotches = (noise > self.thresh * noise.std()).astype(np.float32)
        blotches = cv2.GaussianBlur(blotches, (0, 0), edge)
        inside = np.minimum(np.arange(self.width), np.arange(self.width)[::-1])
        band = blotches * (inside / max(self.margin, 1)).clip(0, 1).astype(np.float32)
        stencil = np.zeros((rows, cols), np.float32)
        left = round(middle * cols) - self.width // 2
        lo, hi = max(left, 0), min(left + self.width, cols)
        stencil[:, lo:hi] = band[:, lo - left : hi - left]
        return stencil


def _paint(stencil: F32) -> Change:
    """Move grey values towards white by the fractions in a stencil."""

    def change(block: Array) -> None:
        (_, y0, x0), (_, y1, x1) = extent((1, *block.shape[-2:]))
        own = cut(stencil[None, None], (0, y0, x0), (1, y1, x1))[0, 0]
        white = 255 if block.dtype == np.uint8 else 1
        for plane in planes(block):
            plane[...] = round_to(plane + own * (white - plane.astype(np.float32)), plane.dtype)

    return change
