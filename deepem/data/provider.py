"""Draw random patches: choose a volume, ask the augmentation how large a patch it needs, and choose a location.

A sample is a pure function of the generator's state. The draws happen in a fixed order, so that the choices can be
replayed without reading a voxel: first the dataset (for nested supersets, from the outside in), then the
augmentation's request and a location at which it fits. If the request fits nowhere, it is drawn again, REDRAWS times
at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data.arrays_given import applied, require_request
from deepem.data.patch import Dataset, Sizes, sizes_of
from deepem.data.transform.base import Apply, Augment, Sample, Spec, owned
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

__all__ = ["DataProvider", "DataSuperset", "Dataset"]

REDRAWS = 100
"""Raise InputError after this many requests in a row that do not fit the volume."""


LOOK = 32
"""Number of samples after which the caches are looked at again."""


class DataSuperset:
    """A set of datasets; each draw picks one, by the given weights or else by `num_samples`."""

    def __init__(self, tag: str = "") -> None:
        self.tag = tag
        self.datasets: list[Dataset | DataSuperset] = []
        self._given: list[float] | None = None
        self._bounds: NDArray[np.float64] | None = None

    def add_dataset(self, dataset: Dataset | DataSuperset) -> None:
        """Add a dataset or another superset."""
        self.datasets.append(dataset)
        self._bounds = None

    def set_sampling_weights(self, p: Iterable[float] | None = None) -> None:
        """Set the weight of each dataset, in the order in which they were added; None uses their `num_samples`.

        Raises:
            InputError: A weight is not positive and finite, or the number of weights is not the number of datasets.
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
        """Sum of `num_samples` over the datasets."""
        return sum(dataset.num_samples for dataset in self.datasets)

    @property
    def probabilities(self) -> dict[str, float]:
        """The probability of each direct member, by tag."""
        bounds = np.concatenate([[0.0], self._cumulative()])
        return {dataset.tag: float(p) for dataset, p in zip(self.datasets, np.diff(bounds), strict=True)}

    def leaves(self) -> list[Dataset]:
        """Return all datasets, including those of nested supersets."""
        return [leaf for dataset in self.datasets for leaf in dataset.leaves()]

    def pick(self, rng: np.random.Generator) -> tuple[str, Dataset]:
        """Draw a dataset; return the tag of the direct member and the dataset (drawn from it if it is a superset)."""
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
        spec: Patch size by key, for datasets without a spec of their own.
    """

    def __init__(self, spec: Sizes) -> None:
        super().__init__()
        self.spec = sizes_of(spec)
        self._augment: Augment | None = None
        self._images: tuple[str, ...] = ()
        self._segs: tuple[str, ...] = ()
        self._looks, self._ahead = 0, False

    def add_dataset(self, dataset: Dataset | DataSuperset) -> None:
        """Add a dataset.

        Raises:
            InputError: The volume lacks a key of the spec or is smaller than the patch.
        """
        for leaf in dataset.leaves():
            if leaf.spec is None:
                leaf.set_spec(self.spec)
            leaf.check()
        super().add_dataset(dataset)

    def set_augment(self, augment: Augment | None) -> None:
        """Set the augmentation of all samples; None turns augmentation off."""
        self._augment = augment

    def set_imgs(self, imgs: Iterable[str]) -> None:
        """Set the keys that hold grey values."""
        self._images = tuple(imgs)

    def set_segs(self, segs: Iterable[str]) -> None:
        """Set the keys that hold instance ids."""
        self._segs = tuple(segs)

    def which(self, rng: np.random.Generator) -> str:
        """Return the tag of the dataset from which `random_sample` would draw with this generator."""
        return self.pick(rng)[0]

    def locate(self, rng: np.random.Generator) -> tuple[str, Vec3]:
        """Return the dataset's tag and the centre (z, y, x) that `random_sample` would draw with this generator."""
        dataset, _, _, pos = self._draw(rng)
        return dataset.tag, pos

    def random_sample(self, rng: np.random.Generator) -> Sample:
        """Return one augmented sample: arrays (C, Z, Y, X) by key."""
        return {key: owned(array) for key, array in self.draw(rng)[1].items()}

    __call__ = random_sample

    def draw(self, rng: np.random.Generator) -> tuple[Dataset, Sample]:
        """Return the dataset of a sample and the augmented sample, whose arrays may be read-only views of the volume.

        Raises:
            InputError: REDRAWS requests of the augmentation did not fit in the drawn dataset.
        """
        dataset, request, apply, pos = self._draw(rng)
        sizes = request.size
        sample = {key: dataset.view(key, dataset.position(key, pos, sizes), size) for key, size in sizes.items()}
        return dataset, sample if apply is None else applied(apply, sample, self._request(dataset))

    @property
    def reads(self) -> bool:
        """Whether any dataset is read from disk as samples are drawn."""
        return any(leaf.reads for leaf in self.leaves())

    def _reads_ahead(self) -> bool:
        """Whether reading ahead is of use; answered anew after LOOK calls, since the caches fill."""
        if self._looks % LOOK == 0:
            leaves = self.leaves()
            self._ahead = all(leaf.has_room_ahead() for leaf in leaves) and not all(leaf.is_cached() for leaf in leaves)
        self._looks += 1
        return self._ahead

    def fetch(self, rng: np.random.Generator) -> None:
        """Read ahead from disk what `draw` will need for this generator, if the caches have room for it."""
        if not self._reads_ahead():  # drawing a location may read from disk, too
            return
        dataset, request, _, pos = self._draw(rng)
        dataset.fetch(pos, request.size)

    def _draw(self, rng: np.random.Generator) -> tuple[Dataset, Spec, Apply | None, Vec3]:
        dataset = self.pick(rng)[1]
        spec = self._request(dataset)
        request: Spec = spec
        apply: Apply | None = None
        for _ in range(REDRAWS):
            if self._augment is not None:
                request, apply = require_request(self._augment.prepare(spec, rng), spec)
            pos = dataset.random_location(request.size, rng)
            if pos is not None:
                return dataset, request, apply, pos
        raise _too_large(dataset, spec, request)

    def _request(self, dataset: Dataset) -> Spec:
        size = dataset.own_spec()
        images = tuple(key for key in self._images if key in size)
        return Spec(size, images, tuple(key for key in self._segs if key in size), dataset.factor)


def _too_large(dataset: Dataset, spec: Spec, request: Spec) -> InputError:
    key = max(request.size, key=lambda k: int(np.prod(request.size[k])))
    shape: Any = dataset.array(key).shape[-3:]
    return InputError(
        f"dataset {dataset.tag}",
        f"{REDRAWS} augmentations in a row that do not fit, the last one reading {request.size[key]} voxels for a "
        f"patch of {spec.size[key]} from a volume of {shape}",
        "a larger volume or mask, a smaller patch, or milder augmentation",
    )
