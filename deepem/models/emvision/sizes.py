"""Which patch sizes a U-shaped network accepts, and the output sizes that result.

Axes are independent. A padded convolution keeps the size, a valid one removes voxels. A pooling divides the size, and
the matching upsampling multiplies it again. A skip is cropped to the size of the map from the level below::

    n - down[0] ------------- crop -------------> n * f[0] - up[0]
         | / f[0]                                     ^ * f[0]
         n - down[1] -- crop --> n * f[1] - up[1] ----'
              | / f[1]                ^ * f[1]
              n - down[2] ------------'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from deepem.models.emvision.utils import div3, mul3, sum3
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

AXES = "zyx"


@dataclass(frozen=True)
class UShape:
    """Size arithmetic of a U-shaped network.

    Attributes:
        factors: Pooling per level, finest first.
        down: Voxels that the convolutions on the way down remove at each level, both ends together; one number more
            than factors. Empty if convolutions are padded.
        up: Voxels that the convolutions on the way up remove, one number per pooling.
        stem: Pooling before, and upsampling after, the whole network.
    """

    factors: tuple[Vec3, ...]
    down: tuple[Vec3, ...] = ()
    up: tuple[Vec3, ...] = ()
    stem: Vec3 = (1, 1, 1)

    def along(self, axis: int, size: int) -> int | None:
        """Output voxels for `size` input voxels along one axis; None if the size does not fit."""
        if size < 1 or size % self.stem[axis]:
            return None
        size //= self.stem[axis]
        skips = []
        for level in range(len(self.factors) + 1):
            size -= self.down[level][axis] if self.down else 0
            skips.append(size)
            if level < len(self.factors):
                if size < 1 or size % self.factors[level][axis]:
                    return None
                size //= self.factors[level][axis]
        for level in reversed(range(len(self.factors))):
            size *= self.factors[level][axis]
            margin = skips[level] - size
            if size < 1 or margin < 0 or margin % 2:  # an odd margin would shift the skip by half a voxel
                return None
            size -= self.up[level][axis] if self.up else 0
        return size * self.stem[axis] if size > 0 else None

    def nearest(self, axis: int, size: int) -> list[int]:
        """The nearest sizes below and above that fit along one axis."""
        reach = range(1, 4 * self.period[axis] + self.least[axis] + 1)
        below = next((size - d for d in reach if self.along(axis, size - d)), None)
        above = next((max(size, 0) + d for d in reach if self.along(axis, max(size, 0) + d)), None)
        return [n for n in (below, above) if n is not None]

    def crops(self) -> list[Vec3]:
        """Voxels to crop from both ends of each skip, finest level first: half of what the levels below remove.

        Raises:
            ValueError: the number of voxels is odd and cannot be halved.
        """
        crops: list[Vec3] = []
        levels = len(self.factors)
        below = self.down[levels] if self.down else (0, 0, 0)
        for level in reversed(range(levels)):
            below = mul3(below, self.factors[level])
            if any(n % 2 for n in below):
                raise ValueError(f"convolutions below level {level} take {below} of its voxels: wants even numbers")
            crops.insert(0, div3(below, 2))
            if self.down and self.up:
                below = sum3(below, self.down[level], self.up[level])
        return crops

    @property
    def period(self) -> Vec3:
        """Step between the sizes that work."""
        return vec3(prod(f[a] for f in (self.stem, *self.factors)) for a in range(3))

    @property
    def least(self) -> Vec3:
        """An upper bound on the smallest size that works."""
        lost = [sum(v[a] for v in (*self.down, *self.up)) for a in range(3)]
        return vec3((1 + lost[a]) * self.period[a] for a in range(3))

    def output_size(self, size: Sequence[int], where: str = "fov (or inputsz)") -> Vec3:
        """Size (z, y, x) of the output for an input of `size`.

        Raises:
            InputError: the size cannot be pooled evenly or is too small; the error names each such axis with the
                nearest sizes that work.
        """
        size = vec3(size)
        out = [self.along(axis, n) for axis, n in enumerate(size)]
        wrong = [
            f"{AXES[a]} = {' or '.join(map(str, self.nearest(a, size[a])))} instead of {size[a]}"
            for a, n in enumerate(out)
            if n is None
        ]
        if wrong:
            raise InputError(where, ",".join(map(str, size)), f"a size the network can pool: {'; '.join(wrong)}")
        return vec3(n for n in out if n is not None)
