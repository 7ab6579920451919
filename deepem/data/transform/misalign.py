"""Misalign sections. Labels move with the image, except that a slip can move the image alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepem.data.transform.base import Apply, Augment, Sample, Spec, keep, owned
from deepem.data.transform.perturb import Change, Fill, in_rows
from deepem.data.transform.region import cut, extent
from deepem.data.transform.slide import Pose, between, slide
from deepem.data.transform.track import Track

Range = tuple[int, int]


@dataclass(frozen=True, repr=False)
class Misalign(Augment):
    """Shift all arrays in y and x from a random section on, and optionally rotate them.

    Attributes:
        disp: Range (lo, hi) of the displacement in voxels. It is drawn from lo..hi-1 for y and for x, with random sign;
            if hi == lo, it is lo.
        margin: At least margin + 1 sections of the shortest array lie before the shift, and as many after it. A patch
            too short for that stays unchanged.
        rot: Also rotate the shifted part, by an angle in degrees from [-rot, rot).
    """

    disp: Range
    margin: int = 0
    rot: float = 0

    def __post_init__(self) -> None:
        _check(self.disp, self.margin)

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw the section and the displacement; the request grows by it."""
        depth, (at, start, end) = spec.frame()[0], _drawn(self, spec, rng)
        if at is None:
            return spec, keep
        poses = [end if z >= at else start for z in range(depth)]
        return slide(spec, poses, poses)


@dataclass(frozen=True, repr=False)
class SlipMisalign(Augment):
    """Shift one random section in y and x, and optionally rotate it.

    Attributes:
        disp: See `Misalign`.
        margin: See `Misalign`.
        interp: Shift only the image and not the labels, so that the network learns to interpolate across the slip.
        rot: See `Misalign`.
    """

    disp: Range
    margin: int = 1
    interp: bool = False
    rot: float = 0

    def __post_init__(self) -> None:
        _check(self.disp, self.margin)

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw the section and the displacement; the request grows by it."""
        depth, (at, start, end) = spec.frame()[0], _drawn(self, spec, rng)
        if at is None:
            return spec, keep
        poses = [end if z == at else start for z in range(depth)]
        return slide(spec, poses, [start] * depth if self.interp else poses)


@dataclass(frozen=True, repr=False)
class MisalignPlusMissing(Augment):
    """Misalign, and blank the first one or two shifted sections of the images (each with probability 1/2).

    The labels of the blank sections are shifted part of the way: by half of the displacement, or by one and two thirds.

    Attributes:
        disp: See `Misalign`.
        margin: See `Misalign`.
        value: Grey value of the blank sections, in [0, 1].
        random: Draw this grey value from [0, 1) instead, for each blank section.
    """

    disp: Range
    margin: int = 1
    value: float = 0
    random: bool = False

    def __post_init__(self) -> None:
        _check(self.disp, self.margin)
        Fill(self.value)

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw the sections, the displacement and the grey values; the request grows by the displacement."""
        return _with_missing(spec, rng, self, None)


@dataclass(frozen=True, repr=False)
class MisalignTrackMissing(Augment):
    """`MisalignPlusMissing`, with a track painted on the sections before and after the blank ones.

    Attributes:
        track: The track; its `skip` is the probability that no track is painted.
        disp: See `MisalignPlusMissing`.
        margin: See `MisalignPlusMissing`.
        value: See `MisalignPlusMissing`.
        random: See `MisalignPlusMissing`.
    """

    track: Track
    disp: Range
    margin: int = 1
    value: float = 0
    random: bool = False

    def __post_init__(self) -> None:
        _check(self.disp, self.margin)
        Fill(self.value)

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw the misalignment and whether to paint a track; the request grows by the displacement."""
        return _with_missing(spec, rng, self, self.track if rng.random() >= self.track.skip else None)


def _drawn(of: Misalign | SlipMisalign, spec: Spec, rng: np.random.Generator) -> tuple[int | None, Pose, Pose]:
    """Draw the index of the section at which the shift begins (None: the patch is too short), and both poses."""
    at = _section(spec, of.margin, rng)
    start, end = _poses(of.disp, of.rot, rng)
    return None if at is None else at + spec.frame()[0] // 2, start, end


def _with_missing(
    spec: Spec, rng: np.random.Generator, of: MisalignPlusMissing | MisalignTrackMissing, track: Track | None
) -> tuple[Spec, Apply]:
    """Prepare a misalignment with blank sections, and optionally a track before and after them."""
    missing = 1 + int(rng.random() < 0.5)
    at = _section(spec, of.margin, rng, missing)
    start, end = _poses(of.disp, 0, rng)
    fills = [Fill(of.value, of.random).draw(rng) for _ in range(missing)]
    if at is None:
        return spec, keep
    depth = spec.frame()[0]
    way = ((z - depth // 2 - at + 1) / (missing + 1) for z in range(depth))
    poses = [between(start, end, min(max(w, 0), 1)) for w in way]
    request, shift = slide(spec, poses, poses)
    changes = dict(enumerate(fills, at))
    if track is not None and spec.images:
        changes |= dict(zip((at - 1, at + missing), track.draw(spec.frame(spec.images), rng), strict=True))

    def apply(sample: Sample) -> Sample:
        return change_sections(shift(sample), spec, changes)

    return request, apply


def _check(disp: Range, margin: int) -> None:
    if len(disp) != 2 or not 0 <= disp[0] <= disp[1]:
        raise ValueError(f"disp: got {disp}, wants two whole numbers of voxels, 0 <= lo <= hi")
    if margin < 0:
        raise ValueError(f"margin: got {margin}, wants a number of sections")


def _section(spec: Spec, margin: int, rng: np.random.Generator, length: int = 1) -> int | None:
    """Draw the first of some sections from margin + 1 ... depth - margin - 1 of the shortest array, or return None.

    The section number is relative to the centre voxel.
    """
    depth = min(z for z, _, _ in spec.size.values())
    end = depth - margin - length + 1
    return int(rng.integers(margin + 1, end)) - depth // 2 if margin + 1 < end else None


def _poses(disp: Range, rot: float, rng: np.random.Generator) -> tuple[Pose, Pose]:
    """Draw a displacement and return the poses before and after it, split as evenly as possible about the centre."""
    lo, hi = disp
    start, end = [], []
    for _ in range(2):
        by = int(rng.integers(lo, max(hi, lo + 1)))
        ends = (-(by // 2), by - by // 2)
        first = int(rng.random() < 0.5)
        start.append(ends[first])
        end.append(ends[1 - first])
    return Pose(*start), Pose(end[0], end[1], float(rng.uniform(-rot, rot)) if rot else 0.0)


def change_sections(sample: Sample, spec: Spec, changes: dict[int, Change]) -> Sample:
    """Change sections of the images in place; section numbers are relative to the centre voxel."""
    (_, y0, x0), (_, y1, x1) = extent(spec.frame(spec.images))
    for key in spec.images:
        image = sample[key] = in_rows(owned(sample[key]))
        for z, change in changes.items():
            block = cut(image, (z, y0, x0), (z + 1, y1, x1))
            if block.size:
                change(block)
    return sample
