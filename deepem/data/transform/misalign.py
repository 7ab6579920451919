"""Misaligned sections. All arrays move together, so that labels stay true to the image; a slip may spare them."""

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
    """From a random section on, everything is shifted in y and x, and turned.

    Attributes:
        disp: The displacement in voxels, drawn from lo..hi-1 for y and for x, either sign; lo alone where hi == lo.
        margin: The shift begins margin + 1 sections from the lower end of the shortest array, or later, and at least
            that many stay behind it. A patch too short for that stays as it is.
        rot: The shifted part is turned too, by an angle in degrees from [-rot, rot).
    """

    disp: Range
    margin: int = 0
    rot: float = 0

    def __post_init__(self) -> None:
        _check(self.disp, self.margin)

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw the section and the displacement; the request grows by it."""
        at = _section(spec, self.margin, rng)
        start, end = _poses(self.disp, self.rot, rng)
        if at is None:
            return spec, keep
        depth = spec.frame()[0]
        poses = [end if z >= at + depth // 2 else start for z in range(depth)]
        return slide(spec, poses, poses)


@dataclass(frozen=True, repr=False)
class SlipMisalign(Augment):
    """One random section is shifted in y and x, and turned.

    Attributes:
        disp: As for `Misalign`.
        margin: As for `Misalign`.
        interp: Only the image slips, and the labels stay: the network is asked to see through it.
        rot: As for `Misalign`.
    """

    disp: Range
    margin: int = 1
    interp: bool = False
    rot: float = 0

    def __post_init__(self) -> None:
        _check(self.disp, self.margin)

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw the section and the displacement; the request grows by it."""
        at = _section(spec, self.margin, rng)
        start, end = _poses(self.disp, self.rot, rng)
        if at is None:
            return spec, keep
        depth = spec.frame()[0]
        poses = [end if z == at + depth // 2 else start for z in range(depth)]
        return slide(spec, poses, [start] * depth if self.interp else poses)


@dataclass(frozen=True, repr=False)
class MisalignPlusMissing(Augment):
    """A misalignment whose first section, or the first two, half of the time each, are missing in the images.

    The labels of the missing sections lie between: at half of the displacement, or at a third and two thirds of it.

    Attributes:
        disp: As for `Misalign`.
        margin: As for `Misalign`.
        value: Grey value of the missing sections, in [0, 1].
        random: It is drawn from [0, 1) instead, for each of them.
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
    """`MisalignPlusMissing` with a track painted on the sections before and behind the missing ones.

    Attributes:
        track: The track; where it is skipped, there is none.
        disp: As for `MisalignPlusMissing`, like all others.
        margin: As there.
        value: As there.
        random: As there.
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
        """Draw whether there is a track, and the rest; the request grows by the displacement."""
        return _with_missing(spec, rng, self, self.track if rng.random() >= self.track.skip else None)


def _with_missing(
    spec: Spec, rng: np.random.Generator, of: MisalignPlusMissing | MisalignTrackMissing, track: Track | None
) -> tuple[Spec, Apply]:
    """A misalignment with missing sections in it, and a track before and behind them."""
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
    """The first of some sections among margin + 1 ... depth - margin - 1 of the shortest array; or None.

    It is given relative to the centre voxel.
    """
    depth = min(z for z, _, _ in spec.size.values())
    end = depth - margin - length + 1
    return int(rng.integers(margin + 1, end)) - depth // 2 if margin + 1 < end else None


def _poses(disp: Range, rot: float, rng: np.random.Generator) -> tuple[Pose, Pose]:
    """Poses before and behind a random displacement, as far to either side of the centre as they can be alike."""
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
    """Change sections of the images, given relative to the centre voxel, in place."""
    (_, y0, x0), (_, y1, x1) = extent(spec.frame(spec.images))
    for key in spec.images:
        image = sample[key] = in_rows(owned(sample[key]))
        for z, change in changes.items():
            block = cut(image, (z, y0, x0), (z + 1, y1, x1))
            if block.size:
                change(block)
    return sample
