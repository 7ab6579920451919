"""Patches drawn at random from volumes: which volume, where in it, and how much of it the augmentation needs.

A sample is a pure function of the generator's state. The draws come in this order, so that the first ones can be
replayed without reading a voxel: the dataset (for supersets, one inside the other), then for up to REDRAWS times
the augmentation's request and a location at which it fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.transform.base import Apply, Augment, Sample, Spec
from deepem.data.volume import Array, Shared
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3

REDRAWS = 100
"""How often a request that does not fit its volume is drawn again before it counts as bad input."""

Sizes = Mapping[str, Sequence[int]]
"""Patch sizes by key, (z, y, x) or (c, z, y, x)."""


def _sizes(spec: Sizes) -> dict[str, Vec3]:
    return {key: vec3(size[-3:]) for key, size in spec.items()}


class _Locations:
    """The non-zero voxels of a mask, drawn uniformly from any box of it.

    A dense mask is its own list: voxels of the box are tried, some at a time. Of a sparse one the flat indices are
    kept, which take less memory than the mask. When a handful of tries all miss, the box is searched exactly, so a
    draw ends, and fails only where the box holds no voxel.
    """

    TRIES = 32
    SPARSE = 1 / 32

    def __init__(self, mask: Shared) -> None:
        array = mask.array[0]
        self.count = sum(int(np.count_nonzero(section)) for section in array)
        self.size = vec3(array.shape)
        self._mask = mask
        self._flat: Shared | None = None
        if self.count < self.SPARSE * array.size:
            dtype = np.int32 if array.size <= np.iinfo(np.int32).max else np.int64
            self._flat = Shared(np.flatnonzero(array).astype(dtype))

    def draw(self, box: Box, rng: np.random.Generator) -> Vec3 | None:
        """One of the mask's voxels in the box, or None."""
        if self.count == 0:
            return None
        if self._flat is None:
            tried = rng.integers(box.begin, box.end, size=(self.TRIES, 3))
            hits = np.flatnonzero(self._mask.array[0][tuple(tried.T)])
        else:
            tried = self._unravel(self._flat.array[rng.integers(self.count, size=self.TRIES)])
            hits = np.flatnonzero(_inside(tried, box))
        if len(hits):
            return vec3(tried[hits[0]])
        found = self._search(box)
        return vec3(found[rng.integers(len(found))]) if len(found) else None

    def _search(self, box: Box) -> NDArray[np.int64]:
        """All voxels of the mask in the box, (N, 3)."""
        if self._flat is None:
            return np.argwhere(self._mask.array[0][box.slices()]) + box.begin
        every = self._unravel(self._flat.array)
        return every[_inside(every, box)]

    def _unravel(self, flat: Array) -> NDArray[np.int64]:
        return np.stack(np.unravel_index(flat, self.size), axis=-1)


def _inside(points: Array, box: Box) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = np.all((points >= box.begin) & (points < box.end), axis=-1)
    return inside


class Dataset:
    """The arrays of one volume, and the patches that can be cut from them.

    Args:
        spec: Patch size by key; a key without one is never read.
        tag: Its name, in errors and logs.
    """

    def __init__(self, spec: Sizes | None = None, tag: str = "") -> None:
        self.tag = tag
        self.spec: dict[str, Vec3] | None = None
        self._arrays: dict[str, tuple[Shared, Vec3]] = {}
        self._locations: tuple[_Locations, Vec3] | None = None
        if spec is not None:
            self.set_spec(spec)

    def set_spec(self, spec: Sizes) -> None:
        """Set the patch size of each key to read."""
        self.spec = _sizes(spec)

    def add_data(self, key: str, data: Array | Shared, offset: Sequence[int] = (0, 0, 0)) -> None:
        """Add an array (Z, Y, X) or (C, Z, Y, X) whose first voxel is at `offset` (z, y, x)."""
        shared = data if isinstance(data, Shared) else Shared(_read_only(data))
        self._arrays[key] = shared, vec3(offset)

    def add_mask(self, key: str, data: Array | Shared, offset: Sequence[int] = (0, 0, 0), loc: bool = False) -> None:
        """Add a mask; with `loc`, patches are centred on its non-zero voxels."""
        self.add_data(key, data, offset)
        if loc:
            self._locations = _Locations(self._arrays[key][0]), vec3(offset)

    def array(self, key: str) -> Array:
        """A whole array (C, Z, Y, X), read-only."""
        return self._arrays[key][0].array

    @property
    def num_samples(self) -> int:
        """Its weight among datasets without given ones: mask voxels if they are the locations, else its volume."""
        if self._locations is not None:
            return self._locations[0].count
        return min(int(np.prod(shared.array.shape[-3:])) for shared, _ in self._arrays.values())

    def valid_range(self, spec: Sizes | None = None) -> Box | None:
        """The positions at which every patch lies in its array; None where there are none.

        A patch starts at pos - size // 2::

            array   [b                     e)        size 4: pos - 2 ... pos + 1
            patch   |--o-|             |--o-|        from b + 2 to e - 2, included
            pos        b + size//2 ... e - (size - size//2 - 1), excluded
        """
        sizes = self._own_spec() if spec is None else _sizes(spec)
        begin, end = [-np.inf] * 3, [np.inf] * 3
        for key, size in sizes.items():
            shared, offset = self._arrays[key]
            for axis in range(3):
                half = size[axis] // 2
                begin[axis] = max(begin[axis], offset[axis] + half)
                length = shared.array.shape[axis - 3]
                end[axis] = min(end[axis], offset[axis] + length - (size[axis] - half - 1))
        if any(e <= b for b, e in zip(begin, end, strict=True)):
            return None
        return Box(vec3(begin), vec3(end))  # type: ignore[arg-type]

    def random_location(self, spec: Sizes | None, rng: np.random.Generator) -> Vec3 | None:
        """A position at which the patches fit, uniform over the mask's voxels or over the valid range; or None."""
        box = self.valid_range(spec)
        if box is None:
            return None
        if self._locations is None:
            return vec3(rng.integers(box.begin, box.end))
        locations, offset = self._locations
        mask_box = Box.of_size(offset, locations.size)
        if (inner := box.intersect(mask_box)) is None:
            return None
        found = locations.draw(inner.shift(-o for o in offset), rng)
        return None if found is None else vec3(f + o for f, o in zip(found, offset, strict=True))

    def get_patch(self, key: str, pos: Sequence[int], dim: Sequence[int]) -> Array:
        """A copy (C, z, y, x) of the voxels around a position; IndexError where they leave the array."""
        shared, offset = self._arrays[key]
        box = Box.around((p - o for p, o in zip(pos, offset, strict=True)), dim)
        if not Box((0, 0, 0), vec3(shared.array.shape[-3:])).contains(box):
            raise IndexError(f"dataset {self.tag}: {key} {tuple(dim)} around {tuple(pos)} leaves the volume")
        z, y, x = box.slices()
        patch: Array = shared.array[:, z, y, x].copy()
        return patch

    def get_sample(self, pos: Sequence[int], spec: Sizes | None = None) -> Sample:
        """The patches of all keys around a position."""
        sizes = self._own_spec() if spec is None else _sizes(spec)
        return {key: self.get_patch(key, pos, size) for key, size in sizes.items()}

    def random_sample(self, rng: np.random.Generator, spec: Sizes | None = None) -> Sample:
        """The patches around a location drawn at random."""
        self.check(spec)
        pos = self.random_location(spec, rng)
        assert pos is not None
        return self.get_sample(pos, spec)

    def check(self, spec: Sizes | None = None) -> None:
        """Refuse patches that fit nowhere in the volume, and keys that it lacks."""
        sizes = self._own_spec() if spec is None else _sizes(spec)
        where = f"dataset {self.tag}" if self.tag else "dataset"
        for key, size in sizes.items():
            if key not in self._arrays:
                raise InputError(where, f"no array {key}", f"one of {', '.join(sorted(self._arrays))}")
            shape = self._arrays[key][0].array.shape[-3:]
            if any(s > n for s, n in zip(size, shape, strict=True)):
                raise InputError(where, f"a patch of {size}", f"one that fits its volume, {shape}")
        if self.random_location(sizes, np.random.default_rng(0)) is None:
            patch = " and ".join(str(size) for size in sorted(set(sizes.values())))
            raise InputError(where, "no voxel of the mask", f"at least one around which a patch of {patch} fits")

    def leaves(self) -> list[Dataset]:
        """Itself."""
        return [self]

    def pick(self, rng: np.random.Generator) -> tuple[str, Dataset]:
        """Its tag and itself; no draw."""
        return self.tag, self

    def _own_spec(self) -> dict[str, Vec3]:
        if self.spec is None:
            raise ValueError(f"dataset {self.tag} has no spec yet")
        return self.spec


def _read_only(data: Array) -> Array:
    """A view (C, Z, Y, X) of an array that is not to be written through."""
    view = data[None] if data.ndim == 3 else data.view()
    if view.ndim != 4:
        raise ValueError(f"shape {data.shape} is neither (Z, Y, X) nor (C, Z, Y, X)")
    view.flags.writeable = False
    return view


class DataSuperset:
    """Datasets of which one is drawn at a time, by given weights or else by their number of samples."""

    def __init__(self, tag: str = "") -> None:
        self.tag = tag
        self.datasets: list[Dataset | DataSuperset] = []
        self._given: list[float] | None = None
        self._bounds: NDArray[np.float64] | None = None

    def add_dataset(self, dataset: Dataset | DataSuperset) -> None:
        """Add one more, a superset too."""
        self.datasets.append(dataset)
        self._bounds = None

    def set_sampling_weights(self, p: Iterable[float] | None = None) -> None:
        """Set the weight of each dataset, in the order they were added; None for their numbers of samples.

        Raises:
            InputError: one that is not positive and finite, or another count than datasets.
        """
        self._given = self._bounds = None
        if p is None:
            return
        given = [float(value) for value in p]
        where = f"sampling weights of {self.tag}" if self.tag else "sampling weights"
        if len(given) != len(self.datasets):
            raise InputError(where, f"{len(given)} values", f"one for each of the {len(self.datasets)} datasets")
        if bad := [value for value in given if not 0 < value < np.inf]:
            raise InputError(where, bad[0], "positive numbers")
        self._given = given

    @property
    def num_samples(self) -> int:
        """The sum over its datasets."""
        return sum(dataset.num_samples for dataset in self.datasets)

    @property
    def probabilities(self) -> dict[str, float]:
        """The chance of each of its datasets, by tag."""
        bounds = np.concatenate([[0.0], self._cumulative()])
        return {dataset.tag: float(p) for dataset, p in zip(self.datasets, np.diff(bounds), strict=True)}

    def leaves(self) -> list[Dataset]:
        """All datasets in it, those of its supersets too."""
        return [leaf for dataset in self.datasets for leaf in dataset.leaves()]

    def pick(self, rng: np.random.Generator) -> tuple[str, Dataset]:
        """Draw a dataset: the tag of its member, and the dataset itself, which lies deeper where that is a superset."""
        bounds = self._cumulative()
        chosen = self.datasets[min(int(np.searchsorted(bounds, rng.random(), side="right")), len(bounds) - 1)]
        return chosen.tag, chosen.pick(rng)[1]

    def _cumulative(self) -> NDArray[np.float64]:
        if self._bounds is None:
            if not self.datasets:
                raise ValueError("no datasets to draw from")
            weights = self._given or [dataset.num_samples for dataset in self.datasets]
            self._bounds = np.cumsum(np.asarray(weights, np.float64)) / np.sum(weights, dtype=np.float64)
        return self._bounds


class DataProvider(DataSuperset):
    """Draws augmented samples from datasets.

    Args:
        spec: Patch size by key, for the datasets that have no spec of their own.
    """

    def __init__(self, spec: Sizes) -> None:
        super().__init__()
        self.spec = _sizes(spec)
        self._augment: Augment | None = None
        self._images: tuple[str, ...] = ()
        self._segs: tuple[str, ...] = ()
        self._requests: dict[int, Spec] = {}

    def add_dataset(self, dataset: Dataset | DataSuperset) -> None:
        """Add a dataset.

        Raises:
            InputError: its volume lacks a key, or is smaller than the patch.
        """
        for leaf in dataset.leaves():
            if leaf.spec is None:
                leaf.set_spec(self.spec)
            leaf.check()
        super().add_dataset(dataset)

    def set_augment(self, augment: Augment | None) -> None:
        """Set what is done to every sample; None for nothing."""
        self._augment = augment

    def set_imgs(self, imgs: Iterable[str]) -> None:
        """Set the keys that hold grey values."""
        self._images = tuple(imgs)

    def set_segs(self, segs: Iterable[str]) -> None:
        """Set the keys that hold instance ids."""
        self._segs = tuple(segs)

    def which(self, rng: np.random.Generator) -> str:
        """The tag of the dataset that `random_sample` would draw from this generator."""
        return self.pick(rng)[0]

    def locate(self, rng: np.random.Generator) -> tuple[str, Vec3]:
        """The dataset and the (z, y, x) around which `random_sample` would cut, from this generator."""
        dataset, _, _, pos = self._draw(rng)
        return dataset.tag, pos

    def random_sample(self, rng: np.random.Generator) -> Sample:
        """One augmented sample: arrays (C, Z, Y, X) by key."""
        return self.draw(rng)[1]

    __call__ = random_sample

    def draw(self, rng: np.random.Generator) -> tuple[Dataset, Sample]:
        """One augmented sample, and the dataset it is from.

        Raises:
            InputError: REDRAWS requests of the augmentation fitted nowhere in the drawn dataset.
        """
        dataset, request, apply, pos = self._draw(rng)
        sample = dataset.get_sample(pos, request.size)
        return dataset, sample if apply is None else apply(sample)

    def _draw(self, rng: np.random.Generator) -> tuple[Dataset, Spec, Apply | None, Vec3]:
        dataset = self.pick(rng)[1]
        spec = self._request(dataset)
        request: Spec = spec
        apply: Apply | None = None
        for _ in range(REDRAWS):
            if self._augment is not None:
                request, apply = self._augment.prepare(spec, rng)
            pos = dataset.random_location(request.size, rng)
            if pos is not None:
                return dataset, request, apply, pos
        raise _too_large(dataset, spec, request)

    def _request(self, dataset: Dataset) -> Spec:
        size = dataset._own_spec()
        images = tuple(key for key in self._images if key in size)
        return Spec(size, images, tuple(key for key in self._segs if key in size))


def _too_large(dataset: Dataset, spec: Spec, request: Spec) -> InputError:
    key = max(request.size, key=lambda k: int(np.prod(request.size[k])))
    shape: Any = dataset.array(key).shape[-3:]
    return InputError(
        f"dataset {dataset.tag}",
        f"{REDRAWS} augmentations in a row that do not fit, the last one reading {request.size[key]} voxels for a "
        f"patch of {spec.size[key]} from a volume of {shape}",
        "a larger volume or mask, a smaller patch, or milder augmentation",
    )
