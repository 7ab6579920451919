"""The sampler: makes training samples for any combination of tasks."""

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
    """Return the shape of every array of a sample: each input, and for each output its target and its mask.

    The target of affinities is one channel of instance ids, from which the device computes the affinities. The target
    of mutually exclusive classes is one channel of class numbers.

    Args:
        in_spec: The network's inputs.
        out_spec: The network's outputs.
        tasks: The rows in which to look up the outputs.

    Raises:
        InputError: An output belongs to no task.
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
    """How to make one output of one volume, and its mask; None where the volume lacks the label or the mask."""

    name: str
    how: Making | None
    mask: str | None

    @property
    def label(self) -> str | None:
        """The label from which the output is made."""
        return None if self.how is None else self.how.label


class Sampler:
    """Draw samples for any set of tasks; an array that several tasks use is read and augmented only once.

    Call it with a random generator to get the arrays of `get_spec`. Images and masks are float32. Classes are uint8
    (0 or 1), which needs a quarter of float32's bandwidth to the GPU. Instance ids are int32, or int64 if any volume
    needs it. If a volume lacks the label of a task, the target and the mask are 0; a volume without a mask counts
    everywhere.

    Args:
        data: Volumes by id, as a dataset module returns them or already passed through `deepem.data.volume.compact`.
        spec: The result of `get_spec`.
        is_train: Use `msk_train` if True, else `msk_val`, where a volume has these masks.
        aug: The augmentation, or None.
        prob: Sampling probability of each id, by id or in the order of `data`; None weighs by number of locations.
        tasks: The rows in which to look up the outputs.
        label_erosion: erode instances by this many voxels, within each section
        border_dilation: widen boundaries by this many voxels on either side, within each section
        label_components: give every connected piece of an instance in a patch its own id

    Attributes:
        layout: Shape of each array of a sample, and its dtype during the transfer to the device. Images stored as
            uint8 stay uint8 and are divided by 255 on the device; all other arrays have the dtype of the sample. (If
            an augmentation turns images into floats, the sample's images are float32 nevertheless.)
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
        """The sampling probability of each id."""
        return self.provider.probabilities

    def which(self, rng: np.random.Generator) -> str:
        """Return the id from which the sample of this generator is drawn."""
        return self.provider.which(rng)

    def member(self, rng: np.random.Generator) -> str:
        """Return the volume from which the sample of this generator is drawn: ``id``, or ``id/name`` in a superset."""
        return self.provider.pick(rng)[1].tag

    def locate(self, rng: np.random.Generator) -> tuple[str, Vec3]:
        """Return the volume (``id``, or ``id/name`` in a superset) and the centre (z, y, x) of the sample."""
        return self.provider.locate(rng)

    @property
    def fetch(self) -> Callable[[np.random.Generator], None] | None:
        """A function that reads ahead what a generator's sample needs; None if all volumes are in memory."""
        return self.provider.fetch if self.provider.reads else None

    def __call__(self, rng: np.random.Generator, out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Make one sample; write its arrays into `out` where given, except arrays that hold one value throughout.

        An array of `out` may have the sample's usual dtype or the dtype of `layout`; the sample then has this dtype.
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
        if self._change.components and output.mask is not None:  # pieces that meet only outside the mask are separate
            label = np.where(mask > 0, label, label.dtype.type(0))
        return KINDS[output.how.task.kind].make(label, output.how, out)

    def _mask(self, output: _Output, patch: Sample, out: Array | None) -> Array:
        shape, dtype = self.layout[f"{output.name}_mask"]
        if output.label is None or output.mask is None:
            return _constant(int(output.label is not None), shape, dtype)
        mask = contiguous(centre_crop(patch[output.mask], vec3(shape[1:])))
        return contiguous(mask, np.empty(shape, dtype) if out is None else out)

    def _dataset(self, tag: str, volume: Mapping[str, Any]) -> Dataset | DataSuperset:
        """Make a Dataset of the arrays that the outputs of one volume need, or a DataSuperset of several volumes."""
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
        """Return the task row of each output, given the labels that the volume has."""
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
    """Check that the augmentation supports labels that are finer than the image.

    Raises:
        InputError: It does not; the error names the operations that do not.
    """
    unsuited = getattr(aug, "unsuited", lambda factor: ())(dataset.factor)  # a user's own augmentation may lack it
    if unsuited:
        names = ", ".join(dict.fromkeys(type(part).__name__ for part in unsuited))
        got = f"{names} for {dataset.tag}, whose labels are finer than its image (label_factor {dataset.factor})"
        wants = "flips, rotations by right angles between axes of one factor, and changes of grey values"
        raise InputError("augment", got, wants)


def _leaves(volume: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the volumes of a superset, or the single volume in a list."""
    return [volume] if "img" in volume else [leaf for part in volume.values() for leaf in _leaves(part)]


def _bytes(dataset: Dataset) -> bool:
    """Whether patches of the image are uint8; True if there is no image."""
    return not dataset.has("img") or (dataset.as_stored("img") and dataset.array("img").dtype == np.uint8)


def _grow(sizes: dict[str, Vec3], key: str, size: Vec3) -> None:
    """Enlarge the size read for a key so that a further patch fits."""
    old = sizes.get(key, size)
    sizes[key] = vec3(max(a, b) for a, b in zip(old, size, strict=True))


def _grey(image: Array, out: Array | None) -> Array:
    """Return grey values as float32 in [0, 1], dividing uint8 by 255; uint8 stays uint8 if `out` is uint8.

    If an augmentation turned uint8 into floats, an `out` of uint8 is not used.
    """
    if image.dtype != np.uint8:
        out = None if out is None or out.dtype == np.uint8 else out
        if out is None and image.dtype != np.float32:  # an augmentation may have changed the dtype
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
    """Return a read-only array of one value with strides of 0, which takes no memory."""
    constant: Array = np.broadcast_to(np.asarray(value, dtype), shape)
    return constant
