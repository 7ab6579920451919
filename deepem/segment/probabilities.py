"""Probabilities on disk: channels of several files combined into one volume, and masks applied to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepem.io.files import opened
from deepem.io.stored import Stored
from deepem.io.volume import VoxelSize
from deepem.segment.channels import Channels, check_type, quantise
from deepem.utils.errors import InputError, told_as, warn
from deepem.utils.geometry import Box, Vec3, vec3

PROBABLE = 0.5
"""Voxels of an excluded object are those with a probability above this."""


@dataclass(frozen=True)
class Part:
    """The channels to use from one file.

    Attributes:
        stored: The file.
        channels: Channel numbers.
    """

    stored: Stored
    channels: tuple[int, ...]

    def read(self, box: Box) -> NDArray[np.uint16]:
        """Read the channels of a box, (C, Z, Y, X) uint16."""
        with told_as({"probabilities": self.stored.name}):
            return quantise(np.ascontiguousarray(self.stored.read(box)[list(self.channels)]))


@dataclass(frozen=True)
class Probabilities:
    """Channels of one volume, from one file or several.

    Attributes:
        parts: The files and their channels, in the order of the combined channels.
        edges: For affinities, the (dz, dy, dx) of each channel, which relates voxel v to v - edge.
        size: (z, y, x) voxels.
        offset: Position of the first voxel in the predicted image.
        voxel_size_nm: (z, y, x), or None if no file states it.
    """

    parts: tuple[Part, ...]
    edges: tuple[Vec3, ...]
    size: Vec3
    offset: Vec3
    voxel_size_nm: VoxelSize | None

    def read(self, box: Box) -> NDArray[np.uint16]:
        """Read a box of all channels, (C, Z, Y, X) uint16."""
        found = [part.read(box) for part in self.parts]
        return found[0] if len(found) == 1 else np.concatenate(found)

    @property
    def names(self) -> list[str]:
        """The files."""
        return [part.stored.name for part in self.parts]


@contextmanager
def opened_affinities(
    files: Sequence[str],
    given: Sequence[Vec3] | None = None,
    direction: str | None = None,
    nearest_only: bool = False,
    tell: Callable[[str], None] = warn,
    remedy: str = "edges and edge_direction",
) -> Iterator[Probabilities]:
    """Affinities of one volume, with the channels of all files concatenated.

    Args:
        files: Their paths.
        given: The edges of all channels of all files, for files that do not store their edges.
        direction: Direction of the given edges: `backward` relates v to v - edge, `forward` to v + edge.
        nearest_only: Leave out long-range edges.
        tell: Called with a message for each channel that is left out; if several channels hold the same pairs, the
            first is used.
        remedy: What the error asks for if a file does not store its edges.

    Raises:
        InputError: the files do not fit together, or the edges are unknown or contradict the file.
    """
    if direction is not None and given is None:
        raise InputError("edge_direction", direction, "edges too")
    with ExitStack() as stack:
        volumes = [_opened(stack, file) for file in files]
        left = None if given is None else _directed(given, direction)
        if left is not None and len(left) != sum(v.channels for v in volumes):
            raise InputError("edges", f"{len(left)} edges for {sum(v.channels for v in volumes)} channels", "one each")
        seen: dict[Vec3, str] = {}
        parts, edges = [], []
        for stored in volumes:
            own = _edges_of(stored, None if left is None else left[: stored.channels], remedy)
            left = None if left is None else left[stored.channels :]
            kept = []
            for channel, edge in enumerate(own):
                pair = max(edge, vec3(-d for d in edge))
                where = f"{stored.name}, channel {channel}, edge {edge}"
                if pair in seen:
                    tell(f"{where}: left out, {seen[pair]} has the same pairs of voxels")
                elif not nearest_only or sum(map(abs, edge)) == 1:
                    kept.append(channel)
                seen.setdefault(pair, where)
            edges += [own[channel] for channel in kept]
            parts += [Part(stored, tuple(kept))] if kept else []
        if not parts:
            raise InputError(", ".join(files), "no nearest edge", "affinities to the nearest voxels")
        if nearest_only:
            _ = Channels.of(edges)
        yield _joined(parts, edges)


@contextmanager
def opened_channel(file: str, channel: int | None) -> Iterator[Probabilities]:
    """One channel of probabilities: a boundary map, or an object map.

    Raises:
        InputError: the channel does not exist, or there are several and none is named.
    """
    with ExitStack() as stack:
        stored = _opened(stack, file)
        if channel is None and stored.channels > 1:
            raise InputError("channel", f"nothing for the {stored.channels} channels of {file}", "the number of one")
        if (channel or 0) >= stored.channels:
            raise InputError("channel", channel, f"0 to {stored.channels - 1}, the channels of {file}")
        yield _joined([Part(stored, (channel or 0,))], ())


def _opened(stack: ExitStack, file: str) -> Stored:
    stored = stack.enter_context(opened(file))
    stored.check_axes()
    dtype, values = np.dtype(stored.data.dtype), stored.attributes.get("values", "probability")
    with told_as({"probabilities": stored.name}):
        check_type(dtype)
    if values != "probability":
        raise InputError(stored.name, f"values: {values}", "probabilities")
    if 0 in stored.size:
        raise InputError(stored.name, f"an array of shape {tuple(stored.data.shape)}", "a volume with voxels")
    if dtype == np.uint8:
        warn(f"{stored.name}: 256 levels leave plateaus, over which a watershed breaks into many fragments")
    return stored


def _directed(edges: Sequence[Vec3], direction: str | None) -> list[Vec3]:
    if direction is None:
        raise InputError("edge_direction", "nothing", "backward (v to v - edge) or forward (v to v + edge)")
    return [vec3(-d for d in edge) if direction == "forward" else vec3(edge) for edge in edges]


def _edges_of(stored: Stored, given: Sequence[Vec3] | None, remedy: str) -> list[Vec3]:
    own = list(stored.edges)
    if not own:
        if given is None:
            raise InputError(stored.name, "no edges", remedy)
        return list(given)
    if len(own) != stored.channels:
        raise InputError(stored.name, f"{len(own)} edges for {stored.channels} channels", "one edge per channel")
    if given is not None and own != list(given):
        raise InputError(stored.name, f"the edges {own}", f"those that were named, {list(given)}")
    return own


def _joined(parts: Sequence[Part], edges: Sequence[Vec3]) -> Probabilities:
    first = parts[0].stored
    size, offset, voxel_size = first.size, first.info.offset, first.voxel_size_nm
    for stored in (part.stored for part in parts[1:]):
        if (stored.size, stored.info.offset) != (size, offset):
            got = f"{stored.size} voxels at {stored.info.offset}"
            raise InputError(stored.name, got, f"the voxels of {first.name}, {size} at {offset}")
        _require_same_voxels(stored, voxel_size, first.name)
    return Probabilities(tuple(parts), tuple(edges), size, offset, voxel_size)


def _require_same_voxels(stored: Stored, voxel_size: VoxelSize | None, other: str) -> None:
    own = stored.voxel_size_nm
    if own is not None and voxel_size is not None and not np.allclose(own, voxel_size):
        raise InputError(stored.name, f"voxels of {list(own)} nm", f"those of {other}, {list(voxel_size)} nm")


@dataclass(frozen=True)
class Inside:
    """The region that segments may occupy: inside all masks and outside all excluded objects.

    Attributes:
        masks: Volumes, each with the position of its first voxel; 0 is outside.
        excluded: Volumes of objects, each with its position: labels, or probabilities, which count if above a half.
    """

    masks: tuple[tuple[Stored, Vec3], ...]
    excluded: tuple[tuple[Stored, Vec3], ...]

    def read(self, box: Box) -> NDArray[np.bool_]:
        """Read the mask of a box, (Z, Y, X) bool."""
        found = np.ones(box.size, bool)
        for stored, shift in self.masks:
            found &= (stored.read(box.shift(shift)) != 0).any(0)
        for stored, shift in self.excluded:
            found &= ~(stored.read(box.shift(shift)) > _least(stored)).any(0)
        return found


def _least(stored: Stored) -> float:
    """The value above which a voxel belongs to an object."""
    dtype = np.dtype(stored.data.dtype)
    if dtype.kind == "f":
        return PROBABLE
    return PROBABLE * np.iinfo(dtype).max if stored.attributes.get("values") == "probability" else 0


@contextmanager
def opened_inside(of: Probabilities, masks: Sequence[str], excluded: Sequence[str]) -> Iterator[Inside | None]:
    """Open masks over probabilities; None without any. Each covers the predicted image, or just these voxels.

    Raises:
        InputError: a mask covers neither.
    """
    if not (masks or excluded):
        yield None
        return
    with ExitStack() as stack:
        placed = [
            [_placed(stack.enter_context(opened(file, sparse=True)), of) for file in files]
            for files in (masks, excluded)
        ]
        yield Inside(tuple(placed[0]), tuple(placed[1]))


def _placed(stored: Stored, of: Probabilities) -> tuple[Stored, Vec3]:
    _require_same_voxels(stored, of.voxel_size_nm, of.names[0])
    if stored.attributes.get("offset") is None and stored.size == of.size:
        return stored, (0, 0, 0)
    shift = vec3(o - own for o, own in zip(of.offset, stored.info.offset, strict=True))
    here = Box.of_size(shift, of.size)
    if not Box((0, 0, 0), stored.size).contains(here):
        got = f"{stored.size} voxels from {stored.info.offset}"
        raise InputError(stored.name, got, f"a volume around {of.size} voxels at {of.offset}, as {of.names[0]}")
    return stored, shift
