"""For each kind of task: how its labels are stored, and how targets are made from them.

KINDS has one entry per kind of `deepem.tasks`. An entry sets all of these fields; none has a default::

    ids        True if the target is instance ids, in the dtype of the volumes' ids; otherwise it is uint8
    by_class   True if the label may have one channel of ids per class
    store      (where, label from the dataset) -> (C, Z, Y, X), checked and in a compact dtype
    channels   number of output channels -> number of target channels
    check      raises InputError if the target cannot be made from a stored label
    make       (label (C, Z, Y, X) of a patch, Making, out) -> target, written into `out` if given
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.data import target
from deepem.data.borders import dilated, eroded
from deepem.data.drawn import Drawn
from deepem.data.labels import as_classes, as_ids, as_ids_by_class
from deepem.data.transform.label import components
from deepem.tasks import Task
from deepem.utils.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True)
class Change:
    """Changes to the labels of every patch, the same for all volumes.

    Attributes:
        erosion: Erode instances by this many voxels within each section; see `deepem.data.borders`.
        dilation: Widen boundaries by this many voxels on either side.
        components: Give every connected piece of an instance, within the patch and its mask, its own id.
    """

    erosion: int = 0
    dilation: int = 0
    components: bool = False


@dataclass(frozen=True)
class Making:
    """How to make the target of one output for one volume.

    Attributes:
        task: The output's row in the task table.
        label: The volume's label from which the target is made, one of the row's sources.
        channels: Number of channels of the target.
        dtype: Dtype of the target.
        touching: The label is a segmentation whose instances touch without a gap.
        partly: The label has voxels of id -1, whose instance is unknown.
        change: Changes to the label before the target is made.
    """

    task: Task
    label: str
    channels: int
    dtype: Any
    touching: bool
    partly: bool = False
    change: Change = Change()

    @property
    def derived(self) -> bool:
        """Whether the label is the segmentation that the row uses when its own label is missing."""
        return self.label == self.task.fallback


Check = Callable[[str, Making, Array | Drawn, Array | Drawn | None], None]


@dataclass(frozen=True)
class Kind:
    """An entry of KINDS; the module's docstring explains the fields."""

    ids: bool
    by_class: bool
    store: Callable[[str, Any], Array | Drawn]
    channels: Callable[[int], int]
    check: Check
    make: Callable[[Array, Making, Array | None], Array]


def _ids(label: Array, how: Making, out: Array | None) -> Array:
    label = target.of_one_channel(label)
    if how.change.erosion:
        label = eroded(label, how.change.erosion)
    if how.change.components:
        label = components(label)
    return target.ids(label, how.dtype, out)


def _ids_by_class(label: Array, how: Making, out: Array | None) -> Array:
    return target.ids(label, how.dtype, out)


def _check_ids_by_class(where: str, how: Making, label: Array | Drawn, mask: Array | Drawn | None) -> None:
    if len(label) != how.channels:
        raise InputError(
            f"{where} {how.task.source}", f"{len(label)} volumes of ids", f"{how.channels}, one for each class"
        )


def _anything(where: str, how: Making, label: Array | Drawn, mask: Array | Drawn | None) -> None:
    """Accept every label: all ids that can be stored can be trained on."""


def _binary(label: Array, how: Making, out: Array | None) -> Array:
    if how.dtype == np.float32:
        return target.soft(label, how.channels, out)
    widened = how.change.dilation if how.task.fallback else 0
    into = None if widened else out
    if how.derived:
        made = target.boundary(target.of_one_channel(label), how.touching, into, how.partly)
    else:
        made = target.binary(label, how.channels, into)
    return target.ids(dilated(made, widened), how.dtype, out) if widened else made


def _check_binary(where: str, how: Making, label: Array | Drawn, mask: Array | Drawn | None) -> None:
    target.check_channels(where, how.task, how.channels, label)
    if label.dtype == np.float32 and label.shape[0] != how.channels:
        raise InputError(f"{where} {how.task.source}", "one soft volume", f"{how.channels}, one per channel")
    if not how.derived and label.dtype != np.float32 and label.shape[0] == 1 < how.channels:
        target.check_classes(where, how.task, how.channels, label, mask)


def _semantic(label: Array, how: Making, out: Array | None) -> Array:
    return target.ids(label, how.dtype, out)


def _check_semantic(where: str, how: Making, label: Array | Drawn, mask: Array | Drawn | None) -> None:
    target.check_channels(where, how.task, 1, label)
    if how.task.channels:  # else the number of classes was not set
        target.check_classes(where, how.task, how.task.channels - 1, label, mask)


def _one(channels: int) -> int:
    return 1


KINDS: dict[str, Kind] = {
    "affinity": Kind(ids=True, by_class=False, store=as_ids, channels=_one, check=_anything, make=_ids),
    "binary": Kind(ids=False, by_class=False, store=as_classes, channels=int, check=_check_binary, make=_binary),
    "semantic": Kind(ids=False, by_class=False, store=as_classes, channels=_one, check=_check_semantic, make=_semantic),
    "instance": Kind(
        ids=True, by_class=True, store=as_ids_by_class, channels=int, check=_check_ids_by_class, make=_ids_by_class
    ),
}


def id_labels(rows: Iterable[Task]) -> frozenset[str]:
    """Return the labels that hold instance ids: labels of kinds with `ids`, and the rows' fallback segmentations."""
    rows = tuple(rows)
    own = {row.source for row in rows if KINDS[row.kind].ids}
    return frozenset(own | {row.fallback for row in rows if row.fallback is not None})


def storage(label: str, rows: Iterable[Task]) -> Callable[[str, Any], Array | Drawn]:
    """Return how to store a label: as ids if any row needs ids, else as the kind of its first row stores it.

    If a row has several classes, the ids may have one channel per class; rows with one class merge the channels.
    """
    rows = tuple(rows)
    users = [KINDS[row.kind] for row in rows if row.source == label]
    wanting_ids = [kind for kind in users if kind.ids]
    if any(KINDS[row.kind].by_class and row.channels > 1 for row in rows if row.source == label):
        return as_ids_by_class
    if not wanting_ids and label in id_labels(rows):
        return as_ids
    return next((kind.store for kind in [*wanting_ids, *users]), as_classes)


def making(row: Task, label: str, channels: int, dtype: Any, array: Array | Drawn, change: Change) -> Making:
    """Return how to make a row's target from a stored label; facts about the whole label are computed once, here."""
    derived = label == row.fallback
    partly = derived and bool(array.min() < 0)
    return Making(row, label, channels, dtype, derived and target.instances_touch(array), partly, change)


def target_type(row: Task, ids: Any, soft: Collection[str] = ()) -> Any:
    """Return the dtype of a row's target, given the dtype of instance ids and the set of soft labels."""
    return ids if KINDS[row.kind].ids else np.dtype(np.float32 if row.source in soft else np.uint8)
