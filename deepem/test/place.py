"""Where volumes behind cloud-volume lie as the command line says it: a path, and a box in (x, y, z) voxels of mip 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deepem.io.precomputed import CloudSource
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3


@dataclass(frozen=True)
class Place:
    """Where in a volume: begin, end, centre and size as on the command line, in (x, y, z) voxels of mip 0."""

    begin: Vec3 | None = None
    end: Vec3 | None = None
    center: Vec3 | None = None
    size: Vec3 | None = None

    def resolve(self, first: Vec3, last: Vec3) -> tuple[Vec3, Vec3]:
        """Begin and end: a centre begins at centre - size // 2, what is missing is taken from the volume's bounds.

        Raises:
            InputError: a centre without a size.
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
        """Begin and end in voxels of a level, outwards to whole ones.

        Where a coarse level ends is up to who made it: rounding gives one voxel more, at an odd offset say, than there
        is. What is not given is where the level ends, and what ends with the volume at mip 0 ends with the level.

        Args:
            first: Where the volume begins at mip 0.
            last: Where it ends there.
            low: Where the level begins.
            high: Where it ends.
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
        """What of a volume the place names.

        Raises:
            InputError: it is not all in the volume.
        """
        ratio = source.ratio[::-1]
        (first, last), (low, high) = ([corner[::-1] for corner in box] for box in (source.whole, source.bounds))
        begin, end = self.at_level(vec3(first), vec3(last), vec3(low), vec3(high), vec3(ratio))
        if any(b < f or e > t or b >= e for b, e, f, t in zip(begin, end, low, high, strict=True)):
            wants = f"within {vec3(low)} to {vec3(high)} of {source.name}"
            raise InputError("--begin, --end", f"{begin} to {end} at mip {source.mip}", wants)
        return source.within(Box(vec3(begin[::-1]), vec3(end[::-1])))

    def in_words(self) -> str:
        """``x{}_y{}_z{}_s{}-{}-{}`` of a centre, ``b-e_b-e_b-e`` of a begin and an end; '' without either."""
        if self.center is not None and self.size is not None:
            return "x{}_y{}_z{}_s{}-{}-{}".format(*self.center, *self.size)
        if self.begin is not None and (self.end is not None or self.size is not None):
            begin, end = self.resolve(self.begin, self.begin)
            return "_".join(f"{b}-{e}" for b, e in zip(begin, end, strict=True))
        return ""


def filled(path: str, keywords: Sequence[str], place: str = "") -> str:
    """A path whose ``{}`` are filled with keywords, or without any with the place."""
    try:
        return path.format(*(keywords or [place]))
    except (IndexError, KeyError, ValueError) as error:
        raise InputError("--keywords", f"{len(keywords)} words for {path}", "one for each {}") from error
