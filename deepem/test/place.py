"""Paths and boxes of cloud-volume volumes as given on the command line, in (x, y, z) voxels of mip 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deepem.io.precomputed import CloudSource
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3


@dataclass(frozen=True)
class Place:
    """A box given by begin, end, centre and size as on the command line, in (x, y, z) voxels of mip 0."""

    begin: Vec3 | None = None
    end: Vec3 | None = None
    center: Vec3 | None = None
    size: Vec3 | None = None

    def resolve(self, first: Vec3, last: Vec3) -> tuple[Vec3, Vec3]:
        """Return begin and end; a centre gives begin = centre - size // 2, and the volume's bounds fill in the rest.

        Raises:
            InputError: there is a centre but no size.
        """
        begin, end = self.begin, self.end
        if self.center is not None:
            if self.size is None:
                raise InputError("--center", "no --size", "both")
            begin = begin or vec3(c - s // 2 for c, s in zip(self.center, self.size, strict=True))
        begin = first if begin is None else begin
        if end is None:
            end = last if self.size is None else vec3(b + s for b, s in zip(begin, self.size, strict=True))
        return begin, end

    def at_level(self, first: Vec3, last: Vec3, low: Vec3, high: Vec3, ratio: Vec3) -> tuple[Vec3, Vec3]:
        """Return begin and end in voxels of a level, rounded outwards to whole voxels.

        The end of a coarse level depends on the program that made it, and rounding may give one voxel more than the
        level has, for example at an odd offset. A missing end, or one at the end of mip 0, is the end of the level.

        Args:
            first: Begin of the volume at mip 0.
            last: End of the volume at mip 0.
            low: Begin of the level.
            high: End of the level.
            ratio: Voxels of mip 0 per voxel of the level.
        """
        begin, end = self.resolve(first, last)
        from_low, to_high = self.begin is self.center is None, self.end is self.size is None
        found = [
            (
                n if from_low else max(b // r, n) if b == f else b // r,
                h if to_high else min(-(-e // r), h) if e == t else -(-e // r),
            )
            for b, e, f, t, n, h, r in zip(begin, end, first, last, low, high, ratio, strict=True)
        ]
        return vec3(b for b, _ in found), vec3(e for _, e in found)

    def within(self, source: CloudSource) -> CloudSource:
        """Return the box of a volume that the place names.

        Raises:
            InputError: part of the box lies outside the volume.
        """
        ratio = source.ratio[::-1]
        (first, last), (low, high) = ([corner[::-1] for corner in box] for box in (source.whole, source.bounds))
        begin, end = self.at_level(vec3(first), vec3(last), vec3(low), vec3(high), vec3(ratio))
        if any(b < f or e > t or b >= e for b, e, f, t in zip(begin, end, low, high, strict=True)):
            wants = f"within {vec3(low)} to {vec3(high)} of {source.name}"
            raise InputError("--begin, --end", f"{begin} to {end} at mip {source.mip}", wants)
        return source.within(Box(vec3(begin[::-1]), vec3(end[::-1])))

    def in_words(self) -> str:
        """Return ``x{}_y{}_z{}_s{}-{}-{}`` for a centre, ``b-e_b-e_b-e`` for begin and end, '' for neither."""
        if self.center is not None and self.size is not None:
            return "x{}_y{}_z{}_s{}-{}-{}".format(*self.center, *self.size)
        if self.begin is not None and (self.end is not None or self.size is not None):
            begin, end = self.resolve(self.begin, self.begin)
            return "_".join(f"{b}-{e}" for b, e in zip(begin, end, strict=True))
        return ""


def filled(path: str, keywords: Sequence[str], place: str = "") -> str:
    """Fill each ``{}`` of a path with a keyword, or with the place if there are no keywords."""
    try:
        return path.format(*(keywords or [place]))
    except (IndexError, KeyError, ValueError) as error:
        raise InputError("--keywords", f"{len(keywords)} words for {path}", "one for each {}") from error
