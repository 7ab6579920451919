"""Open files as layers of the viewer, each in its place.

::

    file  --view_forms-->  how it is drawn
          --attributes-->  voxel size and offset  -->  Layer
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from deepem.io.formats import format_of
from deepem.io.lazy import BLOCK
from deepem.io.volume import VoxelSize
from deepem.tools.predictions import attributes, opened_there, require_offset
from deepem.tools.view_forms import FORMS, Form, Seen, form_of
from deepem.tools.view_shaders import Channel
from deepem.utils.errors import InputError, warn
from deepem.utils.geometry import Vec3


@dataclass(frozen=True)
class Layer:
    """A file in the viewer.

    Attributes:
        name: The name of the layer.
        seen: The opened file.
        kind: A key of FORMS.
        channels: How its channels are drawn.
        shader: The shader, or nothing for labels.
        voxel_size_nm: (z, y, x), None if no file states one.
        offset: Position of its first voxel, (z, y, x), in its own voxels.
    """

    name: str
    seen: Seen
    kind: str
    channels: tuple[Channel, ...]
    shader: str
    voxel_size_nm: VoxelSize | None
    offset: Vec3

    @property
    def form(self) -> Form:
        """How it is drawn."""
        return FORMS[self.kind]

    @property
    def size(self) -> Vec3:
        """(z, y, x) voxels."""
        return self.seen.stored.size

    @property
    def remote(self) -> bool:
        """Whether it is a volume behind cloud-volume."""
        return format_of(self.seen.file).remote

    @property
    def scale(self) -> VoxelSize:
        """Size of a voxel, (z, y, x) nm, or 1 where it is unknown."""
        return self.voxel_size_nm or (1.0, 1.0, 1.0)

    @property
    def bytes_per_column(self) -> int:
        """Bytes that are read to show one voxel of a section; none of a volume with coarser levels of its own."""
        stored = self.seen.stored
        chunks = getattr(stored.data, "read_chunks", None) or getattr(stored.data, "chunks", None) or BLOCK
        return 0 if self.remote else stored.channels * self.seen.dtype.itemsize * min(chunks[-3], self.size[0])

    @property
    def extent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Begin and end, (z, y, x), in nm (in voxels where their size is unknown)."""
        begin = np.asarray(self.offset, np.float64)
        return begin * self.scale, (begin + self.size) * self.scale

    def __str__(self) -> str:
        stored = self.seen.stored
        size = " x ".join(map(str, self.size if stored.channels == 1 else (stored.channels, *self.size)))
        nm = "of unknown size" if self.voxel_size_nm is None else " x ".join(f"{v:g}" for v in self.scale) + " nm"
        place = f" from {','.join(map(str, self.offset))}" if any(self.offset) else ""
        return f"{self.kind:<12}  {size} {self.seen.dtype}, voxels {nm}{place}{_legend(self.channels)}"


def _legend(channels: Sequence[Channel]) -> str:
    """Return the names of axial channels by their colour."""
    names = {(1.0, 0.0, 0.0): "red", (0.0, 1.0, 0.0): "green", (0.0, 0.0, 1.0): "blue"}
    told = [f"{one.name} {names[one.colour]}" for one in channels if one.shown and one.colour in names]
    return f" ({', '.join(told)})" if told else ""


@contextmanager
def opened_layers(
    files: Mapping[str, str], kinds: Mapping[str, str], voxel_size_nm: VoxelSize | None
) -> Iterator[list[Layer]]:
    """Open files as layers, images first.

    Args:
        files: Layer name -> file.
        kinds: Layer name -> the form to draw it in, for layers whose form is not to be determined.
        voxel_size_nm: (z, y, x) of files that do not state it.

    Raises:
        InputError: a file cannot be read or drawn, or its place is not known.
    """
    with ExitStack() as stack:
        layers = [_layer(stack, name, file, kinds.get(name)) for name, file in files.items()]
        layers = _sized(layers, voxel_size_nm)
        layers.sort(key=lambda layer: not layer.form.base)
        _warn_of_apart(layers)
        yield layers


def _layer(stack: ExitStack, name: str, file: str, kind: str | None) -> Layer:
    stored = stack.enter_context(opened_there(file, sparse=True))
    stored.check_axes()
    held = attributes(stored)
    seen = Seen(file, stored, held)
    _refuse_misplaced(seen)
    kind = kind or form_of(seen)
    form = FORMS[kind]
    if seen.dtype.kind not in form.types:
        raise InputError(file, f"{seen.dtype}", f"{'whole numbers' if form.labels else 'numbers'}, as --kind {kind}")
    if form.labels and stored.channels > 1:
        raise InputError(file, f"{stored.channels} channels", "one, as --kind segmentation, or another --kind")
    channels = form.channels(seen)
    return Layer(name, seen, kind, channels, form.shader(seen, channels), stored.voxel_size_nm, stored.info.offset)


def _refuse_misplaced(seen: Seen) -> None:
    """Refuse files whose attributes do not say where their voxels lie, and empty volumes."""
    held, stored = seen.held, seen.stored
    axes = "zyx" if len(stored.data.shape) == 3 else "czyx"
    if str(held.get("axes", axes)).lower() != axes:
        raise InputError(seen.file, f"axes {held['axes']!r}", f"{axes!r}: transpose the array")
    if 0 in stored.data.shape:
        raise InputError(seen.file, f"an array of shape {tuple(stored.data.shape)}", "a volume with voxels")
    if "offset" in held:
        require_offset(seen.file, held["offset"])
    size = stored.voxel_size_nm
    if ("voxel_size_nm" in held and size is None) or not all(nm > 0 for nm in size or ()):
        told = held.get("voxel_size_nm", held.get("resolution"))
        raise InputError(seen.file, f"voxel_size_nm {told!r}", "three numbers z, y, x above 0 in nanometres")


def _sized(layers: Sequence[Layer], given: VoxelSize | None) -> list[Layer]:
    """Return the layers with a voxel size for those whose file does not state it.

    Raises:
        InputError: the other files have different voxel sizes.
    """
    known: dict[VoxelSize, Layer] = {}
    for layer in layers:
        if layer.voxel_size_nm is not None:
            known.setdefault(layer.voxel_size_nm, layer)
    unknown = [layer for layer in layers if layer.voxel_size_nm is None]
    if unknown and given is None and len(known) > 1:
        told = " and ".join(f"{list(size)} of {layer.seen.file}" for size, layer in known.items())
        raise InputError(unknown[0].seen.file, "no voxel size", f"--voxel_size Z,Y,X: the other files have {told}")
    size = given or next(iter(known), None)
    if unknown and given is None and size is not None:
        names = ", ".join(layer.name for layer in unknown)
        warn(f"{names}: no voxel size in the file; shown with the {list(size)} nm of {known[size].name}")
    return [replace(layer, voxel_size_nm=layer.voxel_size_nm or size) for layer in layers]


def _warn_of_apart(layers: Sequence[Layer]) -> None:
    """Warn of layers that have no place in common with the first."""
    first = layers[0]
    for layer in layers[1:]:
        (begin, end), (from_, to) = first.extent, layer.extent
        if (np.maximum(begin, from_) >= np.minimum(end, to)).any():
            warn(f"{layer.name} and {first.name} have no voxel in common: offsets {layer.offset} and {first.offset}")
