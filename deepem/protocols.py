"""Protocols of the plug-in modules, and the conventions for arrays.

Arrays are (C, Z, Y, X) or (Z, Y, X); coordinates and sizes are (z, y, x) voxels; boxes are begin-inclusive and
end-exclusive. Label 0 is background or unlabelled. An edge (dz, dy, dx) relates voxel v to v - (dz, dy, dx), and
channel i of `affinity` is edge i of its row in `deepem.tasks`. Physical sizes carry their unit in the name.

The keyword-only parameters of a plug-in's entry function are its command-line flags, except those that the machinery
fills in (`class_keys`, `labels`, `in_spec`, `out_spec`, `cropsz`). A flag's help text is the line ``name: text`` in
the Args section of that function's docstring.
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
"""One volume. Keys:

- ``img``: the image.
- One key per label. Instance ids are -1 where the label is unknown.
- ``msk``, or ``msk_train`` and ``msk_val``: the mask of all labels. ``<label>_msk``: the mask of one label.
- ``loc``: True to centre patches on voxels of the mask.
- ``soft``: the labels whose values are soft targets in [0, 1].
- ``label_factor``: (z, y, x) voxels of labels and masks per voxel of the image.

A superset of volumes is a mapping of such mappings."""


class DatasetModule(Protocol):
    """A dataset: loads volumes by id.

    Optional attributes:

    - ``splits = {"train": [ids], "val": [ids]}``: the default ids.
    - ``hints = {label: text}``: advice added to the error when a user asks for a label that the data lacks.
    - ``tasks = (Task(...),)``: additional tasks of the existing kinds, beside those of `deepem.tasks`.
    - ``ids_in(data_dir)``: returns the ids in a folder; replaces `data_info`.
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
        """Return volumes by id. `class_keys` are the flags of the chosen tasks, `labels` all labels they could use."""


class Sampler(Protocol):
    """Draws samples: a pure function of the generator's state."""

    def __call__(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Return one sample. ``input`` and masks are float32 (C, Z, Y, X); instance ids stay integers."""


@runtime_checkable
class TellsVolume(Protocol):
    """A sampler that reports the volume of each sample. The log then shows each volume's share of the samples."""

    def which(self, rng: np.random.Generator) -> str:
        """Return the name of the volume from which this generator state draws its sample."""


@runtime_checkable
class TellsMember(Protocol):
    """A sampler that also reports which member of a superset each sample comes from."""

    def member(self, rng: np.random.Generator) -> str:
        """Return the name of the superset followed by the name of the volume."""


@runtime_checkable
class TellsLocation(Protocol):
    """A sampler that reports the location of each sample. The dump of a non-finite step then includes it."""

    def locate(self, rng: np.random.Generator) -> tuple[str, Sequence[int]]:
        """Return the name of the volume and the (z, y, x) centre of the sample."""


@runtime_checkable
class TellsProbabilities(Protocol):
    """A sampler that reports the sampling probability of each volume."""

    probabilities: Mapping[str, float]


@runtime_checkable
class WritesInPlace(Protocol):
    """A sampler whose call takes ``out``: it writes samples straight into the loader's buffers, without a copy."""

    layout: Mapping[str, tuple[tuple[int, ...], Any]] | None
    """Key -> (shape, dtype) of each array of a sample."""


class SamplerModule(Protocol):
    """A sampler module: decides which patches are drawn and how labels become targets.

    Both functions may take a keyword ``tasks``; they then receive the rows of the chosen tasks. They need the rows to
    support tasks that a dataset module defines.
    """

    def get_spec(self, in_spec: Specs, out_spec: Specs) -> Specs:
        """Return the name and shape of each array of a sample."""

    def Sampler(
        self, data: Mapping[str, Arrays], spec: Specs, is_train: bool, aug: object, prob: Sequence[float] | None
    ) -> Sampler:
        """Return a sampler that draws each volume with its given probability."""


class AugmentModule(Protocol):
    """An augmentation recipe."""

    def get_augmentation(self, is_train: bool) -> object:
        """Return one composed `deepem.data.transform` augmentation."""


class ModifierModule(Protocol):
    """A module that changes whole batches on the device."""

    def Modifier(self) -> Modifier:
        """Return a batch modifier."""


class Modifier(Protocol):
    """Changes a batch, on the device."""

    def __call__(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return the batch to train on."""


@runtime_checkable
class HasAuxiliary(Protocol):
    """A network with auxiliary outputs, named ``head@which``, in training. Each has its own loss."""

    auxiliary: Mapping[str, float]
    """Name of the auxiliary output -> weight of its loss, relative to the loss of its head."""


@runtime_checkable
class HasLosses(Protocol):
    """A network that computes losses that are not a function of a single output, such as detection losses."""

    def losses(self, batch: Mapping[str, Any]) -> Any:
        """Return ``{name: (summed loss, count)}``, or a pair of these losses and the logits of the dense heads.

        The trainer applies the criteria to those logits. A loss named after an output gets the weight of that task;
        every other loss gets weight 1.
        """


@runtime_checkable
class HasOutputSize(Protocol):
    """A model module that knows which patch sizes fit its network."""

    def output_size(self, input_size: tuple[int, int, int], **flags: Any) -> tuple[int, int, int]:
        """Return the output size for an input size.

        Raises:
            InputError: the input size does not fit the network; the error lists the nearest sizes that do.
        """


@runtime_checkable
class HasEvaluationSize(Protocol):
    """A model module whose network gives a smaller output in eval mode than in training.

    The output is centred; if the difference in size is odd, the front loses one voxel less than the back.
    """

    def evaluation_size(self, input_size: tuple[int, int, int], **flags: Any) -> tuple[int, int, int]:
        """Return the output size in eval mode, with the same errors as `HasOutputSize.output_size`."""


@runtime_checkable
class HasTiles(Protocol):
    """A model module that knows how patches may be tiled. Sizes are in output voxels."""

    def output_factor(self, **flags: Any) -> tuple[int, int, int]:
        """Return the (z, y, x) number of output voxels per input voxel."""

    def tiling(self, **flags: Any) -> tuple[int, int, int] | None:
        """Return the (z, y, x) steps by which a patch can move without changing the value of any voxel.

        None: values depend on the position of the patch.
        """


@runtime_checkable
class RenamesWeights(Protocol):
    """A network that can also load checkpoints of another program, which name the weights differently."""

    def renamed(self, weights: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the weights under this network's names. Weights that already have these names are unchanged."""


class ModelModule(Protocol):
    """A model module. Its network maps (N, C, Z, Y, X) float to {name: logits (N, C, Z, Y, X)}."""

    def create_model(self, *, in_spec: Specs, out_spec: Specs) -> Any:
        """Return an `nn.Module` with one head per output; `HasLosses` and `HasAuxiliary` list optional methods.

        Optional attributes of the model module: ``crops = False`` declares that the network never gives less than
        `output_size` says. ``formerly`` maps each newer flag to the value that runs from before that flag had.
        """


class BackboneModule(Protocol):
    """A backbone module. Its network maps an image to feature maps."""

    def create_backbone(self, *, in_channels: int) -> Any:
        """Return an `nn.Module` that gives a tensor or an OrderedDict of feature maps.

        The module's attributes `out_channels` and `strides` describe the maps.
        """
