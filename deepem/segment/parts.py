"""Files that the phases exchange: labels and record of each block, regions, graph, merge tree, ids."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deepem.segment.graph import Table
from deepem.segment.join import Regions
from deepem.segment.plan import Plan
from deepem.segment.records import Record
from deepem.segment.relabel import assembled
from deepem.segment.tree import MergeTree
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

GRAPH = ("near_", "far_")
"""Prefixes of the arrays of region graphs, which relabelling does not need."""


class Files(Protocol):
    """Store of small files by name; a file appears only once it is complete."""

    @property
    def path(self) -> str: ...  # noqa: D102

    def put(self, name: str, value: bytes) -> None: ...  # noqa: D102

    def get(self, name: str) -> bytes | None: ...  # noqa: D102


class Parts:
    """The files of one segmentation.

    Args:
        files: The store that holds them.
        plan: The segmentation.
    """

    def __init__(self, files: Files, plan: Plan) -> None:
        self.files, self.plan = files, plan

    def put_block(self, index: int, labels: NDArray[np.unsignedinteger[Any]], record: Record) -> list[tuple[str, int]]:
        """Write the result of labelling a block, and return the checksum of each file."""
        narrow = labels.astype(np.min_scalar_type(max(len(record.sizes), 1)))
        return [
            self._put(f"labels/{index}.npy", _array_bytes(narrow)),
            self._put(f"records/{index}.npz", _bytes(record.arrays())),
        ]

    def record(self, index: int) -> Record:
        """Read the record of a block."""
        return Record.from_arrays(self._arrays(f"records/{index}.npz"))

    def labels(self, area: Box) -> NDArray[Any]:
        """Read the labels of a box; each block numbers its labels from 1."""
        return assembled(self.plan, area, lambda index: self._array(f"labels/{index}.npy"))

    def put_regions(self, regions: Regions) -> list[tuple[str, int]]:
        """Write regions and their graphs."""
        arrays = regions.arrays()
        graphs = {name: value for name, value in arrays.items() if name.startswith(GRAPH)}
        rest = {name: value for name, value in arrays.items() if name not in graphs}
        return [self._put("graphs.npz", _bytes(graphs)), self._put("regions.npz", _bytes(rest))]

    def regions(self, *, graphs: bool = False) -> Regions:
        """Read the regions, with their graphs if asked for."""
        arrays = self._arrays("regions.npz")
        if graphs:
            return Regions.from_arrays(arrays | self._arrays("graphs.npz"))
        return Regions(**arrays, near=Table.empty(), far=Table.empty())

    def put_tree(self, tree: MergeTree) -> list[tuple[str, int]]:
        """Write the merge tree."""
        return [self._put("tree.npz", _bytes(tree.arrays()))]

    def tree(self) -> MergeTree | None:
        """Read the merge tree; None if there is none."""
        held = self.files.get("tree.npz")
        return None if held is None else MergeTree.from_arrays(_arrays_of(held))

    def put_ids(self, name: str, ids: NDArray[np.uint64]) -> list[tuple[str, int]]:
        """Write the segment of each region at a threshold."""
        return [self._put(f"ids/{name}.npy", _array_bytes(ids))]

    def ids(self, name: str) -> NDArray[np.uint64]:
        """Read the segment of each region at a threshold."""
        found: NDArray[np.uint64] = self._array(f"ids/{name}.npy")
        return found

    def holds(self, checksums: Iterable[tuple[str, int]]) -> bool:
        """Whether files match their checksums."""
        found = ((self.files.get(name), crc) for name, crc in checksums)
        return all(held is not None and zlib.crc32(held) == crc for held, crc in found)

    def _put(self, name: str, value: bytes) -> tuple[str, int]:
        self.files.put(name, value)
        return name, zlib.crc32(value)

    def _get(self, name: str) -> bytes:
        held = self.files.get(name)
        if held is None:
            raise InputError(f"{self.files.path}/{name}", "no such file", "what an earlier task wrote")
        return held

    def _arrays(self, name: str) -> dict[str, NDArray[Any]]:
        return _arrays_of(self._get(name))

    def _array(self, name: str) -> NDArray[Any]:
        found: NDArray[Any] = np.load(io.BytesIO(self._get(name)), allow_pickle=False)
        return found


def _bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer, keywords = io.BytesIO(), dict[str, Any](arrays)
    np.savez(buffer, **keywords)
    return buffer.getvalue()


def _array_bytes(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _arrays_of(held: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(held), allow_pickle=False) as file:
        return dict(file)
