"""`Drawn`: an array that stays on disk, from which patches are read as they are drawn.

A `Drawn` takes the place of an array in memory. One scan of the file (`deepem.data.scan`) finds what is needed to check
it and to choose its dtype. To cut a patch, chunks are read, converted, and kept in a cache (`deepem.data.cache`)::

    once:   Lazy (file) -> scan -> Facts -> check -> Storing (dtype, conversion)
    patch:  missing chunks -> read, convert -> cache -> cut -> patch (C, z, y, x)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from deepem.data.facts import Facts, Held, Known, block_counts
from deepem.data.scan import facts_of, pieces_of
from deepem.io.lazy import Lazy, as_lazy
from deepem.io.stored import floats
from deepem.utils.errors import InputError, warn
from deepem.utils.geometry import Box, Tiles, Vec3, vec3

if TYPE_CHECKING:
    from deepem.data.cache import Cache

Array = NDArray[Any]

TOP_CLASS = 255
"""Classes are clipped to this value so that they fit in uint8: no output has that many channels."""


@dataclass(frozen=True)
class Storing:
    """How stored values are converted for training.

    Attributes:
        how: ``cast`` converts to the dtype; ``bytes`` reinterprets bytes unchanged; ``clip`` clips to TOP_CLASS;
            ``positive`` is 1 where values are above 0; ``grey`` accepts only floats from 0 to 1; ``share`` divides
            bytes by 255; ``known`` is 0 where values are -1, and 1 elsewhere.
        dtype: Dtype of the result.
    """

    how: Literal["cast", "bytes", "clip", "positive", "grey", "share", "known"]
    dtype: np.dtype[Any]

    def __call__(self, array: Array) -> Array:
        """Convert values (C, Z, Y, X) to a C-ordered array; return the array itself if nothing changes."""
        if self.how == "bytes":
            return np.ascontiguousarray(array).view(np.uint8)
        if self.how in ("cast", "grey"):
            return np.ascontiguousarray(array, dtype=self.dtype)
        if self.how == "share":
            return np.asarray(np.divide(array, np.float32(TOP_CLASS), dtype=np.float32))
        if self.how == "known":
            there: Array = (array != -1).astype(self.dtype)
            return there
        out = np.empty(array.shape, self.dtype)
        for index in np.ndindex(array.shape[:2]):  # section by section, to keep temporaries small
            part = array[index]
            out[index] = np.minimum(part, TOP_CLASS) if self.how == "clip" else part > 0
        return out


class Drawn:
    """An array (C, Z, Y, X) on disk that is read box by box.

    Args:
        lazy: The array in its file.
        storing: How its values are converted for training.

    Attributes:
        name: Name of the array in errors.
        cache: The cache of its chunks; None for no cache.
    """

    __array_ufunc__ = None  # so that `array * drawn` calls Drawn.__rmul__

    def __init__(self, lazy: Lazy, storing: Storing) -> None:
        self.lazy, self.storing = lazy, storing
        self.name = lazy.name
        self.shape: tuple[int, ...] = (lazy.channels, *lazy.shape[-3:])
        self.cache: Cache | None = None
        self._factor: Array | Drawn | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the values after conversion."""
        return self.storing.dtype if self._factor is None else np.result_type(self.storing.dtype, self._factor.dtype)

    @property
    def nbytes(self) -> int:
        """Number of bytes that the whole array would need in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def remote(self) -> bool:
        """Whether the array is in a remote store, where every read is slow, even of a small box."""
        return self.lazy.remote

    @property
    def key(self) -> object:
        """A key that is the same for arrays with the same values."""
        factor = self._factor
        inner = factor.key if isinstance(factor, Drawn) else None if factor is None else id(factor)
        return self.lazy.path, self.lazy.window, self.storing, inner

    @property
    def chunks(self) -> tuple[Vec3, Vec3]:
        """The size of a chunk, and the begin of this array in the grid of chunks, both (z, y, x) voxels."""
        return self.lazy.chunks, self.lazy.window.begin

    @property
    def facts(self) -> Facts:
        """The facts found by a scan, which runs at the first access."""
        found: Facts | None = self.lazy.known
        if found is None:
            found = self.lazy.known = facts_of(self.lazy)
        return found

    def __len__(self) -> int:
        return self.shape[0]

    def __mul__(self, factor: Array | Drawn) -> Drawn:
        made = Drawn(self.lazy, self.storing)
        made._factor = factor
        return made

    __rmul__ = __mul__

    def read(self, box: Box) -> Array:
        """Read a box (C, z, y, x) from disk and convert it for training."""
        raw = self.lazy.read(box)
        if self.storing.how == "grey":
            raw = floats(self.name, box, raw)
        array = self.storing(raw)
        if self._factor is None:
            return array
        z, y, x = box.slices()
        factor = self._factor.read(box) if isinstance(self._factor, Drawn) else self._factor[:, z, y, x]
        product: Array = array * factor
        return product

    def cut(self, box: Box) -> Array:
        """Return a box (C, z, y, x), read-only, from the cache where possible."""
        patch = self.read(box) if self.cache is None else self.cache.get(self, box)
        patch.flags.writeable = False
        return patch

    def block_counts(self) -> NDArray[np.int64]:
        """Return the number of non-zero voxels in each cube; see `deepem.data.facts.block_counts`."""
        assert self._factor is None, "no location is drawn from a product"
        return self.facts.blocks

    def blocks(self) -> Iterator[Array]:
        """Read the whole array from disk, in blocks (C, z, y, x) of whole chunks."""
        return (self.storing(piece) for _, piece in pieces_of(self.lazy))

    def min(self) -> Any:
        """Return the smallest value in the file."""
        return self.facts.low

    def max(self) -> Any:
        """Return the largest value in the file."""
        high = self.facts.high
        return min(high, TOP_CLASS) if self.storing.how in ("clip", "bytes") else high

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.lazy, self.storing, self._factor, self.cache)


def _rebuilt(lazy: Lazy, storing: Storing, factor: Any, cache: Any) -> Drawn:
    made = Drawn(lazy, storing)
    made._factor, made.cache = factor, cache
    return made


def seen(where: str, given: Any) -> Array | Drawn:
    """Return a dataset module's array as (C, Z, Y, X), or as a `Drawn` if it stays on disk.

    Raises:
        InputError: The array has other axes or no voxels.
    """
    if isinstance(given, Drawn):
        return given
    lazy = as_lazy(given)
    array: Array | None = _as_array(where, given) if lazy is None else None
    shape = lazy.shape if array is None else array.shape  # type: ignore[union-attr]
    if len(shape) not in (3, 4) or 0 in shape:
        raise InputError(where, f"shape {shape}", "(Z, Y, X) or (C, Z, Y, X), not empty")
    if array is None:
        return Drawn(lazy, Storing("cast", lazy.dtype))  # type: ignore[arg-type, union-attr]
    return array if array.ndim == 4 else array[None]


def _as_array(where: str, given: Any) -> Array:
    """Convert the given object to an array of numbers."""
    try:
        array: Array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise InputError(where, f"a ragged {type(given).__name__}", "an array (Z, Y, X) or (C, Z, Y, X)") from error
    if array.dtype.kind not in "biuf":
        kind = "objects" if array.dtype.kind == "O" else str(array.dtype)
        raise InputError(where, f"an array of {kind}, {array.shape}", "an array of numbers (Z, Y, X) or (C, Z, Y, X)")
    return array


def known_of(array: Array | Drawn) -> Known:
    """Return facts about the whole array; an array on disk is scanned first, with a warning if chunks are absent."""
    if not isinstance(array, Drawn):
        return Held(array)
    facts = array.facts
    if facts.absent and not array.lazy.sparse:
        words = "chunk is" if facts.absent == 1 else "chunks are"
        warn(f"{array.name}: {facts.absent} {words} absent and read as the fill value, such as {facts.lacking}")
        array.lazy.told = True
    return facts


def stored(array: Array | Drawn, storing: Storing) -> Array | Drawn:
    """Convert an array in memory now, or a `Drawn` later, as it is read."""
    return Drawn(array.lazy, storing) if isinstance(array, Drawn) else storing(array)


def counts_of(mask: Array | Drawn) -> NDArray[np.int64]:
    """Count the non-zero voxels in each cube of the first channel of a mask (C, Z, Y, X)."""
    return mask.block_counts() if isinstance(mask, Drawn) else block_counts(mask[0])


def size_of(mask: Array | Drawn) -> Vec3:
    """(z, y, x) voxels."""
    return vec3(mask.shape[-3:])


def pieces(first: Array | Drawn, second: Array | Drawn) -> Iterator[tuple[Array, Array]]:
    """Yield the first channels of two arrays, (z, y, x) each, in blocks that fit into memory."""
    thick = first.lazy.chunks[0] if isinstance(first, Drawn) else 1
    size = size_of(first)
    step = vec3((thick, max(2**22 // (thick * size[2]), 1), size[2]))
    for box in Tiles(Box((0, 0, 0), size), step):
        z, y, x = box.slices()
        a, b = (one.read(box) if isinstance(one, Drawn) else one[:, z, y, x] for one in (first, second))
        yield a[0], b[0]
