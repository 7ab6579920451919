"""Arrays of a volume that are drawn from where they lie on disk, checked and stored as those in memory are.

A `Drawn` stands where an array would. It knows what a scan found (`deepem.data.scan`), so that labels are checked and
typed as if they were in memory; a patch of it is read, converted, and kept in a cache (`deepem.data.cache`)::

    Lazy (file), scanned once: Facts, by which it is checked: Storing (type, conversion)
    patch: chunks that the cache lacks are read and converted: cache: patch (C, z, y, x)
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
"""Classes above this one are stored as this one, in one byte: no output has that many channels."""


@dataclass(frozen=True)
class Storing:
    """How values are converted for training.

    Attributes:
        how: ``cast`` to the type; ``bytes``, taken as they are; ``clip`` to TOP_CLASS; ``positive``, 1 above 0;
            ``grey``, floats from 0 to 1, refused where they are not; ``share``, bytes over 255; ``known``, 0 at -1
            and 1 elsewhere.
        dtype: What they become.
    """

    how: Literal["cast", "bytes", "clip", "positive", "grey", "share", "known"]
    dtype: np.dtype[Any]

    def __call__(self, array: Array) -> Array:
        """The values (C, Z, Y, X) as stored, C-ordered; the array itself where it is so already."""
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
        for index in np.ndindex(array.shape[:2]):  # section by section: temporaries stay small
            part = array[index]
            out[index] = np.minimum(part, TOP_CLASS) if self.how == "clip" else part > 0
        return out


class Drawn:
    """An array (C, Z, Y, X) that is read in boxes.

    Args:
        lazy: Where it lies.
        storing: How its values are stored.

    Attributes:
        name: What an error names.
        cache: Where its chunks are kept; None: nowhere.
    """

    __array_ufunc__ = None  # an array times this one is this one times the array

    def __init__(self, lazy: Lazy, storing: Storing) -> None:
        self.lazy, self.storing = lazy, storing
        self.name = lazy.name
        self.shape: tuple[int, ...] = (lazy.channels, *lazy.shape[-3:])
        self.cache: Cache | None = None
        self._factor: Array | Drawn | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """As it is stored for training."""
        return self.storing.dtype if self._factor is None else np.result_type(self.storing.dtype, self._factor.dtype)

    @property
    def nbytes(self) -> int:
        """What it would take in memory."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def remote(self) -> bool:
        """Whether to read takes long however small the box is."""
        return self.lazy.remote

    @property
    def key(self) -> object:
        """Equal for arrays of equal values."""
        factor = self._factor
        inner = factor.key if isinstance(factor, Drawn) else None if factor is None else id(factor)
        return self.lazy.path, self.lazy.window, self.storing, inner

    @property
    def chunks(self) -> tuple[Vec3, Vec3]:
        """The size of a chunk, and where this array begins in the grid of chunks, (z, y, x)."""
        return self.lazy.chunks, self.lazy.window.begin

    @property
    def facts(self) -> Facts:
        """What a scan found; it is made when they are first asked for."""
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
        """A box (C, z, y, x) as it is stored for training, from disk."""
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
        """A box (C, z, y, x), read-only, from the cache as far as it has it."""
        patch = self.read(box) if self.cache is None else self.cache.get(self, box)
        patch.flags.writeable = False
        return patch

    def fetch(self, box: Box) -> None:
        """See to it that the cache has what the box needs."""
        if self.cache is not None:
            self.cache.fetch(self, box)

    def block_counts(self) -> NDArray[np.int64]:
        """The voxels that are not 0 in each cube, as `deepem.data.facts.block_counts` counts them."""
        assert self._factor is None, "no location is drawn from a product"
        return self.facts.blocks

    def blocks(self) -> Iterator[Array]:
        """All of it, in blocks (C, z, y, x) of whole chunks, from disk."""
        return (self.storing(piece) for _, piece in pieces_of(self.lazy))

    def min(self) -> Any:
        """The least value that is stored in the file."""
        return self.facts.low

    def max(self) -> Any:
        """The greatest value."""
        high = self.facts.high
        return min(high, TOP_CLASS) if self.storing.how in ("clip", "bytes") else high

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.lazy, self.storing, self._factor, self.cache)


def _rebuilt(lazy: Lazy, storing: Storing, factor: Any, cache: Any) -> Drawn:
    made = Drawn(lazy, storing)
    made._factor, made.cache = factor, cache
    return made


def seen(where: str, given: Any) -> Array | Drawn:
    """What a dataset module gave as (C, Z, Y, X): a `Drawn` if it lies on disk and is to stay there.

    Raises:
        InputError: it has other axes, or no voxel.
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
    """What was given as an array of numbers."""
    try:
        array: Array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise InputError(where, f"a ragged {type(given).__name__}", "an array (Z, Y, X) or (C, Z, Y, X)") from error
    if array.dtype.kind == "O":
        raise InputError(where, f"an array of objects, {array.shape}", "an array of numbers (Z, Y, X) or (C, Z, Y, X)")
    return array


def known_of(array: Array | Drawn) -> Known:
    """What is known of all of an array; of one on disk after a scan, which says how many chunks are absent."""
    if not isinstance(array, Drawn):
        return Held(array)
    facts = array.facts
    if facts.absent and not array.lazy.sparse:
        words = "chunk is" if facts.absent == 1 else "chunks are"
        warn(f"{array.name}: {facts.absent} {words} absent and read as the fill value, such as {facts.lacking}")
        array.lazy.told = True
    return facts


def stored(array: Array | Drawn, storing: Storing) -> Array | Drawn:
    """The array, converted now or as it is read."""
    return Drawn(array.lazy, storing) if isinstance(array, Drawn) else storing(array)


def counts_of(mask: Array | Drawn) -> NDArray[np.int64]:
    """The voxels that are not 0 in each cube of the first channel of a mask (C, Z, Y, X)."""
    return mask.block_counts() if isinstance(mask, Drawn) else block_counts(mask[0])


def size_of(mask: Array | Drawn) -> Vec3:
    """(z, y, x) voxels."""
    return vec3(mask.shape[-3:])


def pieces(first: Array | Drawn, second: Array | Drawn) -> Iterator[tuple[Array, Array]]:
    """All voxels of the first channels of two arrays, (z, y, x) each, in parts that fit into memory."""
    thick = first.lazy.chunks[0] if isinstance(first, Drawn) else 1
    size = size_of(first)
    step = vec3((thick, max(2**22 // (thick * size[2]), 1), size[2]))
    for box in Tiles(Box((0, 0, 0), size), step):
        z, y, x = box.slices()
        a, b = (one.read(box) if isinstance(one, Drawn) else one[:, z, y, x] for one in (first, second))
        yield a[0], b[0]
