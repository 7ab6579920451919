"""What each plug-in module must offer, and the conventions that arrays and their users share.

Arrays are (C, Z, Y, X) or (Z, Y, X); coordinates and sizes are (z, y, x) voxels; boxes are begin-inclusive and
end-exclusive. Label 0 is background or unlabelled. An edge (dz, dy, dx) relates voxel v to v - (dz, dy, dx), and
channel i of `affinity` is edge i of its row in `deepem.tasks`. Physical sizes carry their unit in the name.

The keyword-only parameters of a plug-in's entry function are its command-line flags, except those that the machinery
fills in (`class_keys`, `labels`, `in_spec`, `out_spec`, `cropsz`). A line ``name: text`` in the Args section of its
docstring is the flag's help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Shape4 = tuple[int, int, int, int]
Specs = Mapping[str, Shape4]
"""Name -> (C, Z, Y, X), in table order, such as ``{"input": (1, 20, 256, 256)}``."""

Arrays = Mapping[str, Any]
"""One volume: ``img``; a label per key, instance ids -1 where nothing is known; ``msk``, or ``msk_train`` and
``msk_val``; ``<label>_msk``; ``loc``, true if patches are to be centred on voxels of the mask; ``soft``, the labels
that are targets in [0, 1]; ``label_factor``, (z, y, x) voxels of labels and masks per voxel of the image. A mapping of
such mappings is a superset of volumes."""


class DatasetModule(Protocol):
    """A dataset: where volumes come from.

    Optional attributes: ``splits = {"train": [ids], "val": [ids]}``, the default ids; ``hints = {label: text}``, what
    to tell a user who asks for a label that is not there; ``tasks = (Task(...),)``, rows of its own beside those of
    `deepem.tasks`, of the kinds that there are; ``ids_in(data_dir)``, the ids in a folder, in place of `data_info`.
    """

    data_info: Mapping[str, Any] | Sequence[str]

    def load_data(
        self,
        data_dir: Path,
        data_ids: Sequence[str] | None = None,
        *,
        class_keys: Sequence[str] = (),
        labels: Sequence[str] = (),
    ) -> Mapping[str, Arrays]:
        """Volumes by id. `class_keys` are the chosen tasks' flags, `labels` every label that they could use."""


class Sampler(Protocol):
    """Draws samples: a pure function of the generator's state."""

    def __call__(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """One sample: ``input`` and masks float32 (C, Z, Y, X), instance ids still integers."""


@runtime_checkable
class TellsVolume(Protocol):
    """A sampler that tells which volume a sample comes from. The log then shows the share of each volume."""

    def which(self, rng: np.random.Generator) -> str:
        """The name of the volume that the sample of this generator comes from."""


@runtime_checkable
class TellsMember(Protocol):
    """A sampler that also tells which member of a superset a sample comes from."""

    def member(self, rng: np.random.Generator) -> str:
        """The name of the volume, with its superset's in front, that the sample of this generator comes from."""


@runtime_checkable
class TellsLocation(Protocol):
    """A sampler that tells where a sample comes from. Dumps of a step that was not finite then say so."""

    def locate(self, rng: np.random.Generator) -> tuple[str, Sequence[int]]:
        """The name of the volume, and the (z, y, x) around which the sample of this generator is cut."""


@runtime_checkable
class TellsProbabilities(Protocol):
    """A sampler that tells the probability of each volume."""

    probabilities: Mapping[str, float]


@runtime_checkable
class WritesInPlace(Protocol):
    """A sampler whose call takes ``out``: it writes samples where the loader tells it, without a copy."""

    layout: Mapping[str, tuple[tuple[int, ...], Any]] | None
    """Key -> shape and type of each array of a sample."""


class SamplerModule(Protocol):
    """A sampler: which patches are drawn, and how volumes become targets.

    If both take a keyword ``tasks``, they are given the chosen rows, without which outputs of rows that only a dataset
    module knows mean nothing to them.
    """

    def get_spec(self, in_spec: Specs, out_spec: Specs) -> Specs:
        """What a sample holds."""

    def Sampler(
        self, data: Mapping[str, Arrays], spec: Specs, is_train: bool, aug: object, prob: Sequence[float] | None
    ) -> Sampler:
        """A sampler over volumes, drawn with the given probabilities."""


class AugmentModule(Protocol):
    """A recipe of augmentations."""

    def get_augmentation(self, is_train: bool) -> object:
        """One composed `deepem.data.transform` augmentation."""


class ModifierModule(Protocol):
    """A change of a whole batch on the device."""

    def Modifier(self) -> Modifier:
        """A batch modifier."""


class Modifier(Protocol):
    """Changes a batch, on the device."""

    def __call__(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The batch to train on."""


@runtime_checkable
class HasAuxiliary(Protocol):
    """A network that in training gives further outputs ``head@which``, which have losses of their own."""

    auxiliary: Mapping[str, float]
    """Name of the output -> weight of its loss, relative to that of its head."""


@runtime_checkable
class HasLosses(Protocol):
    """A network that computes losses itself, where they are no function of one output (detection)."""

    def losses(self, batch: Mapping[str, Any]) -> Any:
        """``{name: (summed loss, count)}``, or a pair of that and the logits of the dense heads.

        Criteria are applied to those logits. A loss named after an output has that task's weight, any other weight 1.
        """


@runtime_checkable
class HasOutputSize(Protocol):
    """A model module that knows which patches fit its network."""

    def output_size(self, input_size: tuple[int, int, int], **flags: Any) -> tuple[int, int, int]:
        """The output patch of an input patch; InputError with the nearest sizes that work if it does not fit."""


@runtime_checkable
class HasEvaluationSize(Protocol):
    """A model module whose network gives less in eval mode than in training.

    Of an odd number of voxels, the smaller half is left out in front.
    """

    def evaluation_size(self, input_size: tuple[int, int, int], **flags: Any) -> tuple[int, int, int]:
        """The output patch of an input patch in eval mode; as `HasOutputSize` says."""


@runtime_checkable
class HasTiles(Protocol):
    """A model module that knows how patches may be laid side by side; sizes are in voxels of the output."""

    def output_factor(self, **flags: Any) -> tuple[int, int, int]:
        """(z, y, x) voxels of the output per voxel of the input."""

    def tiling(self, **flags: Any) -> tuple[int, int, int] | None:
        """The steps by which a patch may move so that no voxel's value changes; None where values depend on it."""


@runtime_checkable
class RenamesWeights(Protocol):
    """A network that knows the names which another program's checkpoints have for its weights."""

    def renamed(self, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        """Such weights under its own names; those under its own names as they are."""


class ModelModule(Protocol):
    """A network: (N, C, Z, Y, X) float -> {name: logits (N, C, Z, Y, X)}."""

    def create_model(self, *, in_spec: Specs, out_spec: Specs) -> Any:
        """An `nn.Module` with one head per output; see `HasLosses` and `HasAuxiliary` for what it may also offer.

        A module may set ``crops = False``: its network then never gives less than `output_size` says. ``formerly``
        maps flags to what runs meant before those flags existed.
        """


class BackboneModule(Protocol):
    """What a model is built on: an image to feature maps."""

    def create_backbone(self, *, in_channels: int) -> Any:
        """An `nn.Module` that gives a tensor or an OrderedDict of maps, with their `out_channels` and `strides`."""
