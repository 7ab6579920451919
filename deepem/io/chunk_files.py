"""The chunk files of an array in a folder, of which some may be missing: they then hold the fill value."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, touched, vec3

METADATA = {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata", "attributes.json"}


class ChunkFiles:
    """Finds the files of the chunks that a box touches.

    Args:
        folder: The folder that file names are relative to.
        shape: Shape of the array, (Z, Y, X) or (C, Z, Y, X).
        chunks: Shape of a chunk.
        name: Chunk index -> file name.
        inside: The folder of the array itself, relative to `folder`.

    Attributes:
        absent: Names of files that were looked for and do not exist.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        name: Callable[[tuple[int, ...]], str],
        inside: str = "",
    ) -> None:
        self.folder, self.shape, self.chunks, self.name, self.inside = folder, shape, chunks, name, inside
        self.absent: set[str] = set()

    def there(self, where: Any) -> Iterator[Path]:
        """Yield the files of the chunks in slices of the last three axes (or ``...``), and record the missing ones.

        Raises:
            InputError: the array has files, but none has the name of a chunk: with a wrong separator or path in the
                metadata it would read as empty.
        """
        if not all(self.shape):
            return
        whole = Box((0, 0, 0), vec3(self.shape[-3:]))
        z, y, x = whole.slices() if where is ... else where[-3:]
        box = Box((z.start, y.start, x.start), (z.stop, y.stop, x.stop))
        channels = range(-(-self.shape[0] // self.chunks[0])) if len(self.shape) == 4 else (0,)
        for chunk in touched(box, vec3(self.chunks[-3:]), whole):
            for channel in channels:
                name = self.file_of(chunk.begin, channel)
                if (file := self.folder / name).exists():
                    yield file
                    continue
                if not self.absent:
                    self._refuse_other_names()
                self.absent.add(name)

    def file_of(self, begin: tuple[int, ...], channel: int = 0) -> str:
        """Return the file name of the chunk that begins at a voxel (z, y, x)."""
        index = tuple(b // n for b, n in zip(begin, self.chunks[-3:], strict=True))
        return self.name((channel, *index) if len(self.shape) == 4 else index)

    def _refuse_other_names(self) -> None:
        first = self.name((0,) * len(self.shape))
        pattern = re.compile(
            re.escape(self.inside) + re.sub(r"(?<=[./c-])0|^0", r"\\d+", re.escape(first[len(self.inside) :]))
        )
        files = (p for p in (self.folder / self.inside).rglob("*") if p.name not in METADATA and p.is_file())
        names = [p.relative_to(self.folder).as_posix() for p in itertools.islice(files, 1000)]
        if names and not any(pattern.fullmatch(name) for name in names):
            got = f"no chunk, but files such as {names[0]}"
            raise InputError(self.folder, got, f"chunks named like {first}, as the metadata say")
