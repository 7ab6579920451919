"""Output volumes behind cloud-volume, written in whole chunks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deepem.io.addresses import refuse_unknown_protocol, to_be_made
from deepem.io.chunks import bounds_of, put, voxel_size_of, zyx
from deepem.io.faults import unwritable
from deepem.io.sink import as_stored
from deepem.io.volume import Array, VoxelSize
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3


@dataclass(frozen=True)
class Layout:
    """The layout of a new output volume; sizes are (z, y, x).

    Attributes:
        bounds: Bounds in voxels of the output's level.
        voxel_size_nm: Voxel size, not always integers.
        chunk: Size of a stored chunk.
        dtype: uint8, float32 or, for ids, uint64.
        classes: Voxels are classes or ids, which cannot be averaged; cloud-volume's type is then "segmentation" instead
            of "image".
        encoding: Encoding of the chunks.
    """

    bounds: Box
    voxel_size_nm: VoxelSize
    chunk: Vec3 = (16, 64, 64)
    dtype: str = "float32"
    classes: bool = False
    encoding: str = "raw"

    def of_classes(self) -> Layout:
        """Return the same layout for class numbers."""
        return replace(self, dtype="uint8", classes=True)


class CloudSink:
    """Output volumes, one per output, written in whole chunks as their planes arrive.

    Existing volumes are all checked before a new one is created. If the block ends with an InputError, new volumes that
    are still empty are deleted.

    Args:
        paths: Output name -> path.
        channels: Output name -> number of channels.
        layout: Layout of the volumes. An existing volume must have the same dtype and voxel size, and contain the
            bounds.
        origin: Position in the volumes of voxel 0 of the boxes given to `write`.
        provenance: The provenance entry for the volumes.
        attributes: Output name -> additional entries of its info file: axes, edges, tasks.
        classes: The outputs that are class numbers; stored as uint8 whatever the layout's dtype.
    """

    def __init__(
        self,
        paths: Mapping[str, str],
        channels: Mapping[str, int],
        layout: Layout,
        origin: Vec3,
        provenance: Mapping[str, Any] | None = None,
        attributes: Mapping[str, Mapping[str, Any]] | None = None,
        classes: Collection[str] = (),
    ) -> None:
        about = attributes or {}
        self.paths, self.origin = paths, origin
        self.layouts = {name: layout.of_classes() if name in classes else layout for name in paths}
        new = [
            path for name, path in paths.items() if not fits(path, channels[name], self.layouts[name], about.get(name))
        ]
        self._new = {path: to_be_made(path) for path in new}
        self.volumes: dict[str, Any] = {}
        try:
            for name, path in paths.items():
                self.volumes[name] = make_volume(
                    path, channels[name], self.layouts[name], provenance or {}, about.get(name, {})
                )
        except InputError:
            self._discard_new()
            raise
        self.chunk = zyx(next(iter(self.volumes.values())).chunk_size)
        self._waiting: dict[str, Array] = {}

    def __enter__(self) -> CloudSink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._waiting.clear()
        if kind is not None and issubclass(kind, InputError):
            self._discard_new()

    def _discard_new(self) -> None:
        """Delete new empty volumes of a refused run, which might not fit the next run with other flags."""
        for path, folders in self._new.items():
            _discard(path, folders)

    def write(self, box: Box, values: Mapping[str, Array], last: bool) -> None:
        """Write planes of a column, (C, Z, Y, X) float32, z ascending. Planes wait until their chunk is complete.

        Args:
            box: Box of the planes; in y and x it consists of whole chunks, or ends with the volume.
            values: Output name -> values.
            last: Whether these are the last planes of the column.
        """
        for name, value in values.items():
            volume, (_, *begin), (_, *end) = self.volumes[name], *box.shift(self.origin)
            first, depth = int(volume.voxel_offset[2]), int(volume.chunk_size[2])
            dtype = np.dtype(self.layouts[name].dtype)
            z, stop, rest = box.begin[0] + self.origin[0], box.end[0] + self.origin[0], value
            while z < stop:  # one layer of chunks at a time avoids a copy of all planes
                layer_end = z - (z - first) % depth + depth
                layer, rest = as_stored(rest[:, : layer_end - z], dtype), rest[:, layer_end - z :]
                z = min(layer_end, stop)
                if name in self._waiting:
                    layer = np.concatenate([self._waiting.pop(name), layer], 1)
                if z < layer_end and not last:
                    self._waiting[name] = layer.copy()
                else:
                    where = Box((z - layer.shape[1], begin[0], begin[1]), (z, end[0], end[1]))
                    self.store(name, where, layer)

    def store(self, name: str, box: Box, array: Array) -> None:
        """Write whole chunks of an output: values (C, Z, Y, X) as stored, box in voxels of the volume."""
        put(self.volumes[name], box, array)


def make_volume(
    path: str,
    channels: int,
    layout: Layout,
    provenance: Mapping[str, Any],
    attributes: Mapping[str, Any] | None = None,
) -> Any:
    """Open the output volume at a path, or create it if it does not exist.

    Raises:
        InputError: the existing volume has a different type or different bounds.
    """
    from cloudvolume import CloudVolume

    if not fits(path, channels, layout, attributes):
        _create(path, channels, layout, provenance, attributes or {})
    return CloudVolume(path, progress=False, compress=False, fill_missing=True, bounded=True)


def fits(path: str, channels: int, layout: Layout, attributes: Mapping[str, Any] | None = None) -> bool:
    """Check that an output fits the existing volume at a path; return False if there is no volume.

    Raises:
        InputError: the existing volume has a different type, different edges or different bounds.
    """
    from cloudvolume import CloudVolume
    from cloudvolume.exceptions import InfoUnavailableError

    refuse_unknown_protocol(path, written=True)
    try:
        there = CloudVolume(path, progress=False)
    except InfoUnavailableError:
        return False
    except Exception as error:  # each protocol raises its own errors
        raise unwritable(path, error) from error
    if there.scale.get("sharding"):
        wants = "one in chunks that are files of their own, or another path: writers of one shard undo each other"
        raise InputError(path, "a sharded volume there", wants)
    bounds = bounds_of(there)
    same = (there.num_channels, str(there.dtype)) == (channels, layout.dtype)
    voxel_size = voxel_size_of(there)
    if not same or not np.allclose(voxel_size, layout.voxel_size_nm) or not bounds.contains(layout.bounds):
        raise InputError(
            path,
            f"a volume there of {there.num_channels} x {there.dtype}, {voxel_size} nm, {bounds}",
            f"{channels} x {layout.dtype}, {layout.voxel_size_nm} nm, around {layout.bounds}, or another path",
        )
    chunk = zyx(there.chunk_size)
    off = [(b - f) % c or ((e - f) % c and e != t)
           for b, e, f, t, c in zip(*layout.bounds, *bounds, chunk, strict=True)]  # fmt: skip
    if any(off):
        wants = f"a box that begins and ends with its chunks of {chunk} from {bounds.begin}"
        raise InputError(path, f"{layout.bounds.begin} to {layout.bounds.end} (z, y, x)", wants)
    _compare_edges(path, there.info.get("attributes"), attributes)
    return True


def _compare_edges(path: str, held: Any, ours: Mapping[str, Any] | None) -> None:
    """Refuse to mix affinities of different edges in one volume. Older volumes do not record their edges."""
    if not isinstance(held, Mapping) or "edges" not in held or not ours or "edges" not in ours:
        return
    wanted = _plain(ours["edges"])
    if held["edges"] != wanted:
        raise InputError(path, f"a volume there with the edges {held['edges']}", f"{wanted}, or another path")


def _create(
    path: str, channels: int, layout: Layout, provenance: Mapping[str, Any], attributes: Mapping[str, Any]
) -> None:
    from cloudvolume import CloudVolume

    info = CloudVolume.create_new_info(
        num_channels=channels,
        layer_type="segmentation" if layout.classes else "image",
        data_type=layout.dtype,
        encoding=layout.encoding,
        resolution=_xyz(layout.voxel_size_nm),
        voxel_offset=_xyz(layout.bounds.begin),
        volume_size=_xyz(layout.bounds.size),
        chunk_size=_xyz(layout.chunk),
    )
    if attributes:  # readers of precomputed volumes ignore unknown members
        info["attributes"] = {name: _plain(value) for name, value in attributes.items()}
    try:
        new = CloudVolume(path, info=info, progress=False)
        new.provenance.processing.append(dict(provenance))
        new.commit_info()
        new.commit_provenance()
    except Exception as error:  # each protocol raises its own errors
        raise unwritable(path, error) from error


def _discard(path: str, folders: Sequence[Path]) -> None:
    """Delete a new volume if it is empty; a failure to do so is not reported, so that the first error stays visible."""
    from cloudfiles import CloudFiles

    with suppress(Exception):
        files = CloudFiles(path, progress=False)
        if any(name not in ("info", "provenance") for name in files.list()):
            return
        files.delete(["info", "provenance"])
        for folder in folders:
            folder.rmdir()


def _plain(value: Any) -> Any:
    """Convert an attribute to JSON types."""
    return np.asarray(value).tolist()


def _xyz(values: Sequence[float]) -> list[float]:
    return list(values)[::-1]
