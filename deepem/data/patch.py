"""`Dataset`: the arrays of one volume, the positions at which patches fit, and the patches themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deepem.data import cache
from deepem.data.drawn import Array, Drawn
from deepem.data.locations import Locations
from deepem.data.shared import Shared
from deepem.data.transform.base import Sample
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3

Sizes = Mapping[str, Sequence[int]]
"""Patch sizes by key, (z, y, x) or (c, z, y, x)."""


def sizes_of(spec: Sizes) -> dict[str, Vec3]:
    """Return the patch sizes as (z, y, x) by key."""
    return {key: vec3(size[-3:]) for key, size in spec.items()}


class Dataset:
    """The arrays of one volume, and the patches that can be cut from them.

    Args:
        spec: Patch size by key. Arrays whose key is missing here are never read.
        tag: Name of the dataset in errors and logs.
    """

    def __init__(self, spec: Sizes | None = None, tag: str = "") -> None:
        self.tag = tag
        self.spec: dict[str, Vec3] | None = None
        self._arrays: dict[str, tuple[Shared | Drawn, Vec3]] = {}
        self._factors: dict[str, Vec3] = {}
        self._locations: tuple[Locations, Vec3] | None = None
        self._changes: dict[str, Callable[[Array], Array]] = {}
        self._location_factor: Vec3 = (1, 1, 1)
        if spec is not None:
            self.set_spec(spec)

    def set_spec(self, spec: Sizes) -> None:
        """Set the patch size of each key to read."""
        self.spec = sizes_of(spec)

    def add_data(
        self, key: str, data: Array | Shared | Drawn, offset: Sequence[int] = (0, 0, 0), factor: Vec3 = (1, 1, 1)
    ) -> None:
        """Add an array (Z, Y, X) or (C, Z, Y, X) whose first voxel is at `offset` (z, y, x).

        Args:
            key: Name of the array.
            data: The array.
            offset: Position of its first voxel, in voxels of this array.
            factor: (z, y, x) voxels of this array per voxel of the grid that positions refer to (the image's grid).
                At least one array must have the factor 1.
        """
        shared = data if isinstance(data, Shared | Drawn) else Shared(_read_only(data))
        self._arrays[key] = shared, vec3(offset)
        if factor != (1, 1, 1):
            self._factors[key] = factor

    def add_mask(
        self,
        key: str,
        data: Array | Shared | Drawn,
        offset: Sequence[int] = (0, 0, 0),
        loc: bool = False,
        factor: Vec3 = (1, 1, 1),
    ) -> None:
        """Add a mask as `add_data` does; with `loc`, patches are centred on its non-zero voxels."""
        self.add_data(key, data, offset, factor)
        if loc:
            self._locations = Locations(self._arrays[key][0]), vec3(offset)
            self._location_factor = factor

    def set_change(self, key: str, change: Callable[[Array], Array]) -> None:
        """Set a function that is applied to every patch (C, z, y, x) of an array."""
        self._changes[key] = change

    def as_stored(self, key: str) -> bool:
        """Whether patches of an array are unchanged voxels of the volume."""
        return key not in self._changes

    def has(self, key: str) -> bool:
        """Whether the dataset has an array of this name."""
        return key in self._arrays

    def array(self, key: str) -> Array | Drawn:
        """Return a whole array (C, Z, Y, X), read-only; a `Drawn` (with shape and dtype) if its voxels are on disk."""
        held = self._arrays[key][0]
        return held if isinstance(held, Drawn) else held.array

    @property
    def num_samples(self) -> int:
        """Weight of this dataset where no weights are given: non-zero mask voxels if `loc`, else voxels."""
        if self._locations is not None:
            return self._locations[0].count
        return min(int(np.prod(self.array(key).shape[-3:])) for key in self._arrays)

    def valid_range(self, spec: Sizes | None = None) -> Box | None:
        """Return the positions at which all patches lie within their arrays, or None if there is no such position.

        A patch starts at pos - size // 2::

            array   [b                     e)        size 4: pos - 2 ... pos + 1
            patch   |--o-|             |--o-|        from b + 2 to e - 2, included
            pos        b + size//2 ... e - (size - size//2 - 1), excluded

        For an array with a factor f, the bounds are divided by f: rounded up at the begin, down at the end.
        """
        sizes = self.own_spec() if spec is None else sizes_of(spec)
        begin, end = [-np.inf] * 3, [np.inf] * 3
        for key, size in sizes.items():
            offset, shape = self._arrays[key][1], self.array(key).shape
            zero, factor = self.position(key, (0, 0, 0), sizes), self._factors.get(key, (1, 1, 1))
            for axis in range(3):
                first = offset[axis] + size[axis] // 2 - zero[axis]
                last = first + shape[axis - 3] - size[axis]
                begin[axis] = max(begin[axis], -(-first // factor[axis]))
                end[axis] = min(end[axis], last // factor[axis] + 1)
        if any(e <= b for b, e in zip(begin, end, strict=True)):
            return None
        return Box(vec3(begin), vec3(end))  # type: ignore[arg-type]

    def position(self, key: str, pos: Sequence[int], spec: Sizes) -> Vec3:
        """Convert a position to the voxels of an array, such that patches of finer arrays share the same centre.

        A patch of `n` voxels of the image and the patch of `f n` voxels of a finer array begin at the same place::

            patch        |   .   |   o   |   .   |       n = 3, centre voxel o at pos, n // 2 from its begin
            finer patch  | . | . | . | o | . | . |       f = 2, centre voxel o at 2 pos + 1, 6 // 2 from its begin

        Args:
            key: Name of the array.
            pos: Centre voxel of the patches, in voxels of the image.
            spec: Patch sizes; the first array without a factor gives `n`.
        """
        factor = self._factors.get(key)
        if factor is None:
            return vec3(pos)
        coarse = next(size for name, size in spec.items() if name not in self._factors)[-3:]
        return vec3(p * f + (f // 2 if n % 2 else 0) for p, f, n in zip(pos, factor, coarse, strict=True))

    def random_location(self, spec: Sizes | None, rng: np.random.Generator) -> Vec3 | None:
        """Draw a position at which the patches fit, uniformly from the mask's voxels (`loc`) or the valid range.

        Return None if the patches fit nowhere.
        """
        box = self.valid_range(spec)
        if box is None:
            return None
        if self._locations is None:
            return vec3(rng.integers(box.begin, box.end))
        (locations, offset), factor = self._locations, self._location_factor
        begin, end = (vec3(n * f for n, f in zip(corner, factor, strict=True)) for corner in box)
        if (inner := Box(begin, end).intersect(Box.of_size(offset, locations.size))) is None:
            return None
        found = locations.draw(inner.shift(-o for o in offset), rng)
        if found is None:
            return None
        return vec3((n + o) // f for n, o, f in zip(found, offset, factor, strict=True))

    def get_patch(self, key: str, pos: Sequence[int], dim: Sequence[int]) -> Array:
        """Return a copy (C, z, y, x) of the voxels around a position; raise IndexError if they leave the array."""
        patch: Array = self.view(key, pos, dim).copy()
        return patch

    def view(self, key: str, pos: Sequence[int], dim: Sequence[int]) -> Array:
        """Return the patch as a read-only view of the volume or cache; if `set_change` applies, it is a new array."""
        held, box = self._arrays[key][0], self._box(key, pos, dim)
        if isinstance(held, Drawn):
            patch = held.cut(box)
        else:
            z, y, x = box.slices()
            patch = held.array[:, z, y, x]
        if key in self._changes:
            patch = self._changes[key](patch)
        patch.flags.writeable = False
        return patch

    def fetch(self, pos: Sequence[int], sizes: Sizes) -> None:
        """Read ahead from disk what `view` will need for a sample."""
        boxes = {key: self._box(key, self.position(key, pos, sizes), size) for key, size in sizes.items()}
        cache.fetch(self._wanted(boxes))

    def has_room_ahead(self) -> bool:
        """Whether the caches can hold what is read ahead for samples that the augmentation does not enlarge."""
        return cache.has_room_ahead(self._wanted({k: Box((0, 0, 0), size) for k, size in self.own_spec().items()}))

    def is_cached(self) -> bool:
        """Whether the caches hold all arrays that are read from disk."""
        drawn = (held for held, _ in self._arrays.values() if isinstance(held, Drawn))
        return all(array.cache is not None and array.cache.complete() for array in drawn)

    def _wanted(self, boxes: Mapping[str, Box]) -> cache.Wanted:
        held = ((self._arrays[key][0], box) for key, box in boxes.items())
        return [(array, box) for array, box in held if isinstance(array, Drawn)]

    @property
    def reads(self) -> bool:
        """Whether any of the arrays is read from disk as patches are drawn."""
        return any(isinstance(held, Drawn) for held, _ in self._arrays.values())

    def _box(self, key: str, pos: Sequence[int], dim: Sequence[int]) -> Box:
        box = Box.around((p - o for p, o in zip(pos, self._arrays[key][1], strict=True)), dim)
        if not Box((0, 0, 0), vec3(self.array(key).shape[-3:])).contains(box):
            raise IndexError(f"dataset {self.tag}: {key} {tuple(dim)} around {tuple(pos)} leaves the volume")
        return box

    def get_sample(self, pos: Sequence[int], spec: Sizes | None = None) -> Sample:
        """Return the patches of all keys around a position."""
        sizes = self.own_spec() if spec is None else sizes_of(spec)
        return {key: self.get_patch(key, self.position(key, pos, sizes), size) for key, size in sizes.items()}

    def random_sample(self, rng: np.random.Generator, spec: Sizes | None = None) -> Sample:
        """Return the patches of all keys around a random position."""
        self.check(spec)
        pos = self.random_location(spec, rng)
        assert pos is not None
        return self.get_sample(pos, spec)

    def check(self, spec: Sizes | None = None) -> None:
        """Raise InputError if an array is missing or the patches fit nowhere in the volume."""
        sizes = self.own_spec() if spec is None else sizes_of(spec)
        where = f"dataset {self.tag}" if self.tag else "dataset"
        for key, size in sizes.items():
            if key not in self._arrays:
                raise InputError(where, f"no array {key}", f"one of {', '.join(sorted(self._arrays))}")
            shape = self.array(key).shape[-3:]
            if any(s > n for s, n in zip(size, shape, strict=True)):
                raise InputError(where, f"a patch of {size}", f"one that fits its volume, {shape}")
        if self.random_location(sizes, np.random.default_rng(0)) is None:
            patch = " and ".join(str(size) for size in sorted(set(sizes.values())))
            raise InputError(where, "no voxel of the mask", f"at least one around which a patch of {patch} fits")

    @property
    def factor(self) -> Vec3:
        """(z, y, x) voxels of the labels per voxel of the images, the same for all finer arrays."""
        return next(iter(self._factors.values()), (1, 1, 1))

    def leaves(self) -> list[Dataset]:
        """Return this dataset in a list, as `DataSuperset.leaves` does for all of its datasets."""
        return [self]

    def pick(self, rng: np.random.Generator) -> tuple[str, Dataset]:
        """Return the tag and this dataset without drawing; see `DataSuperset.pick`."""
        return self.tag, self

    def own_spec(self) -> dict[str, Vec3]:
        """Return the patch size of each key to read."""
        if self.spec is None:
            raise ValueError(f"dataset {self.tag} has no spec yet")
        return self.spec


def _read_only(data: Array) -> Array:
    """Return a read-only view (C, Z, Y, X) of an array."""
    view = data[None] if data.ndim == 3 else data.view()
    if view.ndim != 4:
        raise ValueError(f"shape {data.shape} is neither (Z, Y, X) nor (C, Z, Y, X)")
    view.flags.writeable = False
    return view
