"""Samples for every combination of tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from deepem.data.kinds import KINDS, Change, Making, id_labels, making, target_type
from deepem.data.provider import DataProvider, Dataset, DataSuperset
from deepem.data.transform.base import Augment, Sample, owned
from deepem.data.volume import Array, compact
from deepem.tasks import TASKS, Task, by_output
from deepem.utils.contiguous import contiguous
from deepem.utils.crop import centre_crop
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

Shape4 = tuple[int, int, int, int]

WHITE = np.float32(255)


def get_spec(
    in_spec: Mapping[str, Sequence[int]], out_spec: Mapping[str, Sequence[int]], *, tasks: Sequence[Task] = TASKS
) -> dict[str, Shape4]:
    """The shape of everything that a sample holds: the inputs, and per output its target and its mask.

    An affinity's target is the instance ids, one channel: affinities are computed from them on the device. That of
    classes that exclude each other is their numbers.

    Args:
        in_spec: The network's inputs.
        out_spec: The network's outputs.
        tasks: The rows among which those of the outputs are.

    Raises:
        InputError: an output that is no task's.
    """
    spec = {name: _shape(shape) for name, shape in in_spec.items()}
    rows = by_output(out_spec, rows=tasks)
    for name, shape in out_spec.items():
        if name not in rows:
            outputs = ", ".join(dict.fromkeys(task.name for task in tasks))
            raise InputError("sampler", f"the output {name}", f"one of {outputs}")
        channels, *size = _shape(shape)
        spec[name] = (KINDS[rows[name].kind].channels(channels), *vec3(size))
        spec[f"{name}_mask"] = (1, *vec3(size))
    return spec


def _shape(shape: Sequence[int]) -> Shape4:
    channels, z, y, x = (int(n) for n in shape)
    return channels, z, y, x


@dataclass(frozen=True)
class _Output:
    """How one output of one volume is made, and which mask holds, where the volume has a label and a mask for it."""

    name: str
    how: Making | None
    mask: str | None

    @property
    def label(self) -> str | None:
        """The label that it is made from."""
        return None if self.how is None else self.how.label


class Sampler:
    """Draws samples for any set of tasks. Each array of a volume is read and augmented once, whoever uses it.

    Called with a generator, it gives the arrays of `get_spec`: images and masks float32, classes uint8 (0 or 1: a byte
    is a quarter of the way to a GPU), instance ids int32, or int64 where those of any volume need it. A task whose
    label a volume lacks gets zeros and a zero mask; a volume without mask counts everywhere.

    Args:
        data: Volumes by id, as a dataset module gives them or from `deepem.data.volume.compact`, which they go through.
        spec: From `get_spec`.
        is_train: Whether `msk_train` or `msk_val` holds, where a volume has those.
        aug: The augmentation, or None.
        prob: The chance of each id, by id or in their order; by number of locations if None.
        tasks: The rows among which those of the outputs are.
        label_erosion: take so many voxels off the borders of instances, within each section
        border_dilation: widen boundaries by so many voxels to either side, within each section
        label_components: give every connected piece of an instance in a patch an id of its own

    Attributes:
        layout: The shape of each array of a sample, and its type on the way to the device: that of the sample, but
            grey values that are uint8 in the volumes stay so, and are divided by 255 there. (Where an augmentation
            makes floats of them, arrays of the sample are float32 all the same.)
    """

    def __init__(
        self,
        data: Mapping[str, Mapping[str, Any]],
        spec: Mapping[str, Sequence[int]],
        is_train: bool = True,
        aug: Augment | None = None,
        prob: Mapping[str, float] | Sequence[float] | None = None,
        *,
        tasks: Sequence[Task] = TASKS,
        label_erosion: int = 0,
        border_dilation: int = 0,
        label_components: bool = False,
    ) -> None:
        for name, value in (("label_erosion", label_erosion), ("border_dilation", border_dilation)):
            if value < 0:
                raise InputError(f"--{name}", value, "a number of voxels, 0 or more")
        self._change = Change(label_erosion, border_dilation, label_components)
        self.spec = {name: _shape(shape) for name, shape in spec.items()}
        names = by_output(self.spec, rows=tasks)
        self._rows = tuple(row for row in tasks if row.name in names)
        self.inputs = [n for n in self.spec if n not in names and n.removesuffix("_mask") not in names]
        self._outputs: dict[str, list[_Output]] = {}
        self.provider = DataProvider({})
        self.provider.set_augment(aug)
        self.provider.set_imgs(["img"])
        ids = id_labels(tasks)
        self.provider.set_segs(sorted(ids))
        labels = sorted({source for row in self._rows for source in row.sources})
        phase = "train" if is_train else "val"
        checked = {id: compact(id, volume, labels, phase, tasks) for id, volume in data.items()}
        self._id_type = np.result_type(np.int32, *(leaf[key].dtype for v in checked.values() for leaf in _leaves(v)
                                                   for key in ids if key in leaf))  # fmt: skip
        self._soft = {key for v in checked.values() for leaf in _leaves(v) for key in labels
                      if key in leaf and leaf[key].dtype == np.float32}  # fmt: skip
        for id, volume in checked.items():
            self.provider.add_dataset(self._dataset(id, volume))
        for leaf in self.provider.leaves():
            _require_suited(aug, leaf)
        bytes_alone = all(_bytes(leaf) for leaf in self.provider.leaves())
        types = {name: np.dtype(np.uint8 if bytes_alone else np.float32) for name in self.inputs}
        types |= {name: target_type(row, self._id_type, self._soft) for name, row in names.items()}
        self.layout = {name: (shape, types.get(name, np.dtype(np.float32))) for name, shape in self.spec.items()}
        if isinstance(prob, Mapping):
            if lacking := [id for id in data if id not in prob]:
                raise InputError("sampling probabilities", f"none for {lacking[0]}", "one per id")
            prob = [prob[id] for id in data]
        self.provider.set_sampling_weights(prob)

    @property
    def probabilities(self) -> dict[str, float]:
        """The chance of each id."""
        return self.provider.probabilities

    def which(self, rng: np.random.Generator) -> str:
        """The id that the sample of this generator is drawn from."""
        return self.provider.which(rng)

    def member(self, rng: np.random.Generator) -> str:
        """The volume that the sample of this generator is drawn from: ``id``, or ``id/name`` in a superset."""
        return self.provider.pick(rng)[1].tag

    def locate(self, rng: np.random.Generator) -> tuple[str, Vec3]:
        """The volume (``id``, or ``id/name`` in a superset) and the (z, y, x) that the sample is cut around."""
        return self.provider.locate(rng)

    @property
    def fetch(self) -> Callable[[np.random.Generator], None] | None:
        """Reads ahead what the sample of a generator needs; None where all volumes are in memory."""
        return self.provider.fetch if self.provider.reads else None

    def __call__(self, rng: np.random.Generator, out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """One sample, its arrays written into those of `out` where they are given and not one value throughout.

        An array of `out` may have the type of the sample or that of `layout`, and the sample's then has it too.
        """
        dataset, patch = self.provider.draw(rng)
        out = out or {}
        sample = {name: _grey(centre_crop(patch["img"], self._size(name)), out.get(name)) for name in self.inputs}
        for output in self._outputs[dataset.tag]:
            mask = f"{output.name}_mask"
            sample[mask] = self._mask(output, patch, out.get(mask))
            sample[output.name] = self._target(output, patch, sample[mask], out.get(output.name))
        return sample

    def _size(self, name: str) -> Vec3:
        return vec3(self.spec[name][-3:])

    def _target(self, output: _Output, patch: Sample, mask: Array, out: Array | None) -> Array:
        shape, dtype = self.layout[output.name]
        if output.how is None:
            return _constant(0, shape, dtype)
        label = centre_crop(patch[output.how.label], self._size(output.name))
        if self._change.components and output.mask is not None:  # what meets only where nothing counts is apart
            label = np.where(mask > 0, label, label.dtype.type(0))
        return KINDS[output.how.task.kind].make(label, output.how, out)

    def _mask(self, output: _Output, patch: Sample, out: Array | None) -> Array:
        shape, dtype = self.layout[f"{output.name}_mask"]
        if output.label is None or output.mask is None:
            return _constant(int(output.label is not None), shape, dtype)
        mask = contiguous(centre_crop(patch[output.mask], vec3(shape[1:])))
        return contiguous(mask, np.empty(shape, dtype) if out is None else out)

    def _dataset(self, tag: str, volume: Mapping[str, Any]) -> Dataset | DataSuperset:
        """One volume's arrays, those that its outputs need; or a superset of volumes."""
        if "img" not in volume:
            superset = DataSuperset(tag)
            for name, part in volume.items():
                superset.add_dataset(self._dataset(f"{tag}/{name}", part))
            return superset
        outputs = [self._output(tag, name, row, volume) for name, row in self._present(volume).items()]
        self._outputs[tag] = outputs
        sizes: dict[str, Vec3] = {}
        for name in self.inputs:
            _grow(sizes, "img", self._size(name))
            if self.spec[name][0] != len(volume["img"]):
                wants = f"{self.spec[name][0]}, as the network's {name} has"
                raise InputError(f"{tag} img", f"{len(volume['img'])} channels", wants)
        for output in outputs:
            for key in (output.label, output.label and output.mask):
                if key is not None:
                    _grow(sizes, key, self._size(output.name))
        dataset = Dataset(sizes, tag)
        for key in dict.fromkeys([*sizes, *(["msk"] if volume.get("loc") and "msk" in volume else [])]):
            factor = (1, 1, 1) if key == "img" else volume.get("label_factor", (1, 1, 1))
            dataset.add_mask(key, volume[key], loc=key == "msk" and bool(volume.get("loc")), factor=factor)
        if "intensity" in volume:
            dataset.set_change("img", volume["intensity"])
        return dataset

    def _present(self, volume: Mapping[str, Any]) -> dict[str, Task]:
        """The row of each output, by the labels that a volume has."""
        return by_output(self.spec, volume, self._rows)

    def _output(self, tag: str, name: str, row: Task, volume: Mapping[str, Any]) -> _Output:
        label = next((source for source in row.sources if source in volume), None)
        mask = next((key for key in (f"{label}_msk", "msk") if key in volume), None)
        if label is None:
            return _Output(name, None, mask)
        dtype = target_type(row, self._id_type, self._soft)
        how = making(row, label, self.spec[name][0], dtype, volume[label], self._change)
        KINDS[row.kind].check(tag, how, volume[label], None if mask is None else volume[mask])
        return _Output(name, how, mask)


def _require_suited(aug: Augment | None, dataset: Dataset) -> None:
    """Refuse an augmentation that cannot turn labels that are finer than the image together with it.

    Raises:
        InputError: the operations that cannot are named.
    """
    unsuited = getattr(aug, "unsuited", lambda factor: ())(dataset.factor)  # one of the user's own may not know
    if unsuited:
        names = ", ".join(dict.fromkeys(type(part).__name__ for part in unsuited))
        got = f"{names} for {dataset.tag}, whose labels are finer than its image (label_factor {dataset.factor})"
        wants = "flips, rotations by right angles between axes of one factor, and changes of grey values"
        raise InputError("augment", got, wants)


def _leaves(volume: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The volumes of a superset, or the one volume itself."""
    return [volume] if "img" in volume else [leaf for part in volume.values() for leaf in _leaves(part)]


def _bytes(dataset: Dataset) -> bool:
    """Whether patches of the image are bytes, where there is an image."""
    return not dataset.has("img") or (dataset.as_stored("img") and dataset.array("img").dtype == np.uint8)


def _grow(sizes: dict[str, Vec3], key: str, size: Vec3) -> None:
    """Enlarge what is read of a key to hold one more patch."""
    old = sizes.get(key, size)
    sizes[key] = vec3(max(a, b) for a, b in zip(old, size, strict=True))


def _grey(image: Array, out: Array | None) -> Array:
    """Grey values as float32 in [0, 1], uint8 divided by 255; or as they are, if they are uint8 and `out` is too.

    Floats that an augmentation made of uint8 are not written into an `out` of uint8.
    """
    if image.dtype != np.uint8:
        out = None if out is None or out.dtype == np.uint8 else out
        if out is None and image.dtype != np.float32:  # an augmentation may have computed in others
            out = np.empty(image.shape, np.float32)
        return owned(contiguous(image, out))
    if out is not None and out.dtype == np.uint8:
        return contiguous(image, out)
    grey: Array = np.empty(image.shape, np.float32) if out is None else out
    # section by section, from a copy, which stays in the cache: to divide rows that lie apart waits for each of them
    for sections, into in zip(image, grey, strict=True):
        for section, plane in zip(sections, into, strict=True):
            np.divide(contiguous(section), WHITE, out=plane, dtype=np.float32)
    return grey


@lru_cache
def _constant(value: int, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of one value, read-only, which takes no memory."""
    constant: Array = np.broadcast_to(np.asarray(value, dtype), shape)
    return constant
