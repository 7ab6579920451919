"""Open outputs of deepem forward and label volumes, and place each over its truth by its attributes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem import tasks
from deepem.build.cases import Case
from deepem.data import emio
from deepem.evaluate import inside
from deepem.io.files import opened
from deepem.io.formats import format_of, split_path
from deepem.io.stored import Stored
from deepem.io.volume import VoxelSize
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3

Array = NDArray[Any]


@dataclass(frozen=True)
class Prediction:
    """An output of deepem forward: (C, Z, Y, X) probabilities or (1, Z, Y, X) classes, with its attributes.

    Attributes:
        file: Its path, as given.
        stored: The file, opened.
        task: The row of the output.
        edges: The edge (dz, dy, dx) of each channel, for affinities.
        classes: Whether it holds classes.
    """

    file: str
    stored: Stored
    task: tasks.Task
    edges: tuple[Vec3, ...]
    classes: bool = False

    @classmethod
    def of(cls, file: str, stored: Stored) -> Prediction:
        """Return the prediction in an opened file.

        Raises:
            InputError: its attributes do not describe it.
        """
        held = attributes(stored)
        shape = tuple(stored.data.shape)
        for name in ("axes", "offset", "tasks"):
            if name not in held:
                raise InputError(file, f"no attribute {name}", "an output of deepem forward")
        if len(shape) != 4 or held["axes"] != "czyx":
            raise InputError(file, f"axes {held['axes']!r} of shape {shape}", "axes 'czyx', four of them")
        require_offset(file, held["offset"])
        if "voxel_size_nm" in held and stored.voxel_size_nm is None:
            raise InputError(file, f"voxel_size_nm {held['voxel_size_nm']!r}", "three numbers z, y, x in nanometres")
        flags = held["tasks"]
        if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
            raise InputError(file, f"tasks {flags!r}", "a list with one task, as deepem forward writes it")
        own = [tasks.from_plain(row) for row in held.get("rows", ())]
        rows = [task for task in own or tasks.TASKS if task.flag in flags]
        if len(flags) != 1 or len(rows) != 1:
            raise InputError(file, f"tasks {flags}", f"one of {[task.flag for task in tasks.TASKS]}")
        edges = stored.edges
        if tasks.KINDS[rows[0].kind].edges and len(edges) != shape[0]:
            raise InputError(file, f"{len(edges)} edges for {shape[0]} channels", "one edge per channel")
        return cls(file, stored, rows[0], edges, held.get("values") == "class")

    @property
    def size(self) -> Vec3:
        """(z, y, x) voxels."""
        return self.stored.size

    @property
    def offset(self) -> Vec3:
        """Position of its first voxel in the image."""
        return self.stored.info.offset

    @property
    def voxel_size_nm(self) -> VoxelSize | None:
        """(z, y, x), or None if the file does not give it."""
        return self.stored.voxel_size_nm

    def read(self, box: Box) -> Array:
        """Read a box: probabilities (C, Z, Y, X) in [0, 1], or classes."""
        array = self.stored.read(box)
        return array / np.float32(255) if array.dtype == np.uint8 and not self.classes else array

    @cached_property
    def array(self) -> Array:
        """Read the whole prediction."""
        return self.read(Box((0, 0, 0), self.size))


def require_offset(file: str, offset: Any) -> None:
    """Refuse an attribute `offset` that is not three whole numbers."""
    given = np.ravel(np.asarray(offset))
    if given.shape != (3,) or given.dtype.kind not in "iuf" or not (given == np.round(given)).all():
        raise InputError(file, f"offset {offset}", "three whole numbers z, y, x in voxels")


@dataclass(frozen=True)
class Laid:
    """A volume such as the truth, read in the coordinates of a prediction.

    Attributes:
        stored: The volume.
        begin: Position of the prediction's first voxel in the volume.
    """

    stored: Stored
    begin: Vec3

    def read(self, box: Box) -> Array:
        """Read a box given in voxels of the prediction, (C, Z, Y, X)."""
        return self.stored.read(box.shift(self.begin))


def laid(stored: Stored, size: Vec3, offset: Vec3, file: str) -> Laid:
    """Return a volume, such as the truth, in the coordinates of a prediction.

    The volume's own offset is respected, for example that of a cut-out of the truth.

    Raises:
        InputError: the volume does not contain all voxels of the prediction.
    """
    if len(stored.data.shape) not in (3, 4):
        got = f"a volume of shape {tuple(stored.data.shape)}"
        raise InputError(stored.name.removesuffix(":main"), got, "(Z, Y, X) or (C, Z, Y, X)")
    begin = vec3(o - own for o, own in zip(offset, stored.info.offset, strict=True))
    covered = Box.of_size(begin, size)
    if not Box((0, 0, 0), stored.size).contains(covered):
        wants = f"a place in {stored.name.removesuffix(':main')}, of size {stored.size}"
        raise InputError(file, f"voxels {covered.begin} to {covered.end}", wants)
    return Laid(stored, begin)


def attributes(stored: Stored) -> dict[str, Any]:
    """Return the attributes of a file, with bytes and JSON decoded."""
    return {name: _plain(value) for name, value in stored.attributes.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        return json.loads(value) if value[:1] in ("[", "{") else value
    values = value.tolist() if hasattr(value, "tolist") else value
    return [_plain(v) for v in values] if isinstance(values, list) else values


def truth_file(truth: str, sources: Sequence[str], of: str) -> tuple[str, str]:
    """Return the label and file of a truth; in a folder, the first of several labels whose <label>.h5 exists.

    Raises:
        InputError: the folder has none of these files.
    """
    folder = Path(truth)
    if not folder.is_dir() or folder.suffix in emio.SUFFIXES["zarr"] or "://" in truth:
        return sources[0], truth
    suffixes = [suffix for kind in emio.SUFFIXES.values() for suffix in kind]
    names = [(label, folder / f"{label}{suffix}") for label in sources for suffix in suffixes]
    there = [(label, str(file)) for label, file in names if file.exists()]
    if not there:
        raise InputError(truth, f"no {' or '.join(f'{label}.h5' for label in sources)}", f"the truth of {of}")
    return there[0]


@contextmanager
def opened_prediction(file: str) -> Iterator[Prediction]:
    """Open a file as a prediction."""
    with opened_there(file) as stored:
        yield Prediction.of(file, stored)


@contextmanager
def opened_there(file: str, sparse: bool = False) -> Iterator[Stored]:
    """Open a volume.

    Raises:
        InputError: the file does not exist or cannot be read.
    """
    if not format_of(file).exists(split_path(file)[0]):
        raise InputError(file, "no such volume", "a file that is there")
    with opened(file, sparse=sparse) as stored:
        yield stored


@contextmanager
def opened_case(
    prediction: Prediction, truth: str, mask: str | None = None, ignore_border: Vec3 | None = None
) -> Iterator[tuple[Case, str]]:
    """Open the truth of a prediction; return both together and the truth's file.

    Args:
        prediction: The opened prediction.
        truth: A label volume, or a folder of <label>.h5.
        mask: A volume that is 0 where voxels do not count.
        ignore_border: Voxels this close, (z, y, x), to a border between true objects do not count either.

    Raises:
        InputError: prediction, truth and mask do not fit together.
    """
    with ExitStack() as stack:
        label, file = truth_file(truth, prediction.task.sources, prediction.file)
        volume = stack.enter_context(opened_there(file))
        require_same_voxels(prediction.file, prediction.voxel_size_nm, volume, file)
        behind = laid(volume, prediction.size, prediction.offset, prediction.file)
        counts = stack.enter_context(opened_mask(prediction, mask, behind, ignore_border))
        yield (
            Case(
                prediction.file, prediction.task, prediction.edges, prediction.size, prediction.read, behind.read,
                label, counts, prediction.classes,
            ),
            file,
        )  # fmt: skip


def require_same_voxels(file: str, own: VoxelSize | None, truth: Stored, name: str) -> None:
    """Refuse a truth with another voxel size."""
    size = truth.voxel_size_nm
    if own is not None and size is not None and not np.allclose(own, size):
        raise InputError(file, f"voxels of {list(own)} nm", f"those of {name}, {list(size)} nm")


@contextmanager
def opened_mask(of: Any, mask: str | None, truth: Laid, ignore_border: Vec3 | None) -> Iterator[Any]:
    """Yield a function that reads which voxels count, (Z, Y, X) bool, or None if all count.

    Args:
        of: The prediction, with `file`, `size` and `offset`.
        mask: A volume, or None.
        truth: The truth of the prediction.
        ignore_border: See `opened_case`.
    """
    if mask is None and ignore_border is None:
        yield None
        return
    with ExitStack() as stack:
        over = None
        if mask is not None:
            stored = stack.enter_context(opened_there(mask, sparse=True))
            over = laid(stored, of.size, of.offset, of.file)
            if stored.channels != 1:
                wants = "one: a mask holds for all channels of the prediction"
                raise InputError(mask, f"{stored.channels} channels", wants)
        whole, reach = Box((0, 0, 0), of.size), ignore_border or (0, 0, 0)

        def read(box: Box) -> Array:
            found = np.ones(box.size, bool) if over is None else over.read(box)[0] > 0
            if any(reach):
                begin = vec3(b - r for b, r in zip(box.begin, reach, strict=True))
                area = Box(begin, vec3(e + r for e, r in zip(box.end, reach, strict=True))).intersect(whole)
                assert area is not None
                here = box.shift(-b for b in area.begin).slices()
                found = found & inside(truth.read(area)[0], reach)[here]
            return found

        yield read


def described(attributes: Mapping[str, Any]) -> bool:
    """Whether attributes say that a file is an output of deepem forward."""
    return "tasks" in attributes


def holds_objects(attributes: Mapping[str, Any]) -> bool:
    """Whether attributes say that a file is a label volume of objects, an output of deepem forward."""
    return described(attributes) and attributes.get("values") == "label"
