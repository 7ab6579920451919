"""N5 arrays, read and written by tensorstore. The default array is the folder itself, or ``main`` if it is a group.

N5 orders axes (x, y, z, c); this module reverses them to (c, z, y, x). Blocks at the far end may be clipped, or extend
beyond the array.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from deepem.io.chunk_files import ChunkFiles
from deepem.io.faults import missing_array, readable
from deepem.io.format import MAIN, Format
from deepem.io.stored import Stored
from deepem.io.volume import Array


class Reversed:
    """A tensorstore array with its axes reversed.

    Attributes:
        absent: Files of blocks that were read and do not exist; N5 reads them as 0.
        file_of: (z, y, x) begin of a block -> its file.
    """

    def __init__(self, array: Any, folder: Path) -> None:
        self.array = array
        self.shape, self.dtype = tuple(array.shape)[::-1], np.dtype(array.dtype.numpy_dtype)
        self.chunks = tuple(array.chunk_layout.read_chunk.shape)[::-1]
        self._files = ChunkFiles(folder, self.shape, self.chunks, lambda index: "/".join(map(str, index[::-1])))
        self.absent, self.file_of = self._files.absent, self._files.file_of

    def __getitem__(self, where: Any) -> Array:
        if len(self.shape) in (3, 4):
            list(self._files.there(where))
        if where is not ...:
            _, *zyx = where
            x_first = tuple(reversed(zyx))
            return np.asarray(np.asarray(self.array[x_first].read().result()).transpose())
        return np.asarray(np.asarray(self.array.read().result()).transpose())


@contextmanager
def _open(file: str, key: str | None) -> Iterator[Stored]:
    with readable(file, "N5"):
        import tensorstore

        root = _told(Path(file))
        inside = key or ("" if "dimensions" in root else MAIN)
        told = _told(Path(file, inside))
        if "dimensions" not in told:
            raise missing_array(file, inside, sorted(_arrays(Path(file))))
        spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{Path(file, inside)}/"}}
        data = Reversed(tensorstore.open(spec, read=True).result(), Path(file, inside))
        size = told.get("resolution")  # x, y, z
        known = {"voxel_size_nm": size[::-1]} if isinstance(size, list) else {}
        stored = Stored(f"{file}:{inside}" if inside else file, data, known | told.get("attributes", {}))
    yield stored


def _told(folder: Path) -> dict[str, Any]:
    file = folder / "attributes.json"
    told = json.loads(file.read_text()) if file.is_file() else {}
    return told if isinstance(told, dict) else {}


def _arrays(folder: Path) -> Iterator[str]:
    for file in folder.rglob("attributes.json"):
        if "dimensions" in _told(file.parent):
            yield file.parent.relative_to(folder).as_posix()


def _write(file: str, key: str | None, array: Array, compress: bool, attributes: Mapping[str, Any]) -> None:
    with readable(file, "N5"):
        import tensorstore

    array = array.transpose().astype(array.dtype.newbyteorder("="))
    folder = Path(file, key or "")
    told = {
        "dimensions": list(array.shape),
        "blockSize": [min(64, max(n, 1)) for n in array.shape],
        "dataType": str(array.dtype),
        "compression": {"type": "gzip"},
    }
    spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{folder}/"}, "metadata": told, "create": True}
    tensorstore.open(spec).result().write(array).result()
    if attributes:
        plain = {name: np.asarray(value).tolist() for name, value in attributes.items()}
        path = folder / "attributes.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "attributes": plain}))


N5 = Format("N5", (".n5",), _open, _write, inside=True, folder=True, forks=False)
