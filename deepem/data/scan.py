"""Scan an array on disk once to find its `Facts`, and save them to a file for the next run.

The file lies beside the data as ``.<name>.<digest>.facts.npz``. If that folder is not writable, or the data are in a
remote store, it lies in the user's cache folder. The file also identifies the data, so changed data are scanned again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from deepem.data.facts import BLOCK, Array, Facts, add_blocks
from deepem.io.formats import split_path
from deepem.io.identity import identity
from deepem.io.lazy import Lazy
from deepem.utils.files import replacing
from deepem.utils.geometry import Box, Vec3, vec3

PIECE_BYTES = 2**25
"""Approximate size of the pieces that are read."""

READERS = 4
QUIET_S = 3.0
"""Scans shorter than this show no progress bar."""

VERSION = 1


def facts_of(lazy: Lazy) -> Facts:
    """Return the facts of an array, from an earlier scan's file or from a new scan.

    Raises:
        InputError: Part of the array cannot be read.
    """
    known, places = identity(lazy.path), list(_places(lazy))
    for place in places:
        if (found := _kept(place, known)) is not None:
            return found
    lazy.told = True  # no warning of absent chunks during the scan: their number is known at the end
    facts = scan(lazy)
    for place in places:
        with suppress(OSError):
            _keep(place, known, facts)
            break
    return facts


def scan(lazy: Lazy) -> Facts:
    """Read a whole array once, piece by piece, and return its facts.

    Raises:
        InputError: Part of the array cannot be read.
    """
    size = vec3(lazy.shape[-3:])
    found = Facts(
        (lazy.channels, *size), lazy.dtype, None, None, whole=True, two_valued=True, near_top=False, marked=0,
        touch=0, gap=0, absent=0, lacking="", blocks=np.zeros([-(-n // BLOCK) for n in size], np.int64),
    )  # fmt: skip
    least: Any = None  # smallest value above 0
    last: Array | None = None
    with tqdm(total=int(np.prod(size)), desc=f"scanning {lazy.name}", unit="voxel", unit_scale=True, delay=QUIET_S,
              leave=False) as bar:  # fmt: skip
        for box, piece in pieces_of(lazy):
            found, least = _seen(found, least, piece)
            add_blocks(found.blocks, piece[0], box.begin)
            ids = piece[0] if box.begin[2] == 0 or last is None else np.concatenate([last, piece[0]], 2)
            touch, gap = meetings(ids)
            found = replace(found, touch=found.touch + touch, gap=found.gap + gap)
            last = piece[0][:, :, -1:].copy()
            bar.update(box.voxels)
    absent = lazy.absent
    two = found.two_valued and (least is None or bool(least == found.high))
    return replace(found, two_valued=two, marked=int(found.blocks.sum()), absent=len(absent),
                   lacking=min(absent, default=""))  # fmt: skip


def meetings(ids: Array) -> tuple[int, int]:
    """Count neighbours in x with different ids (Z, Y, X): pairs without a 0, and pairs with a 0.

    Pairs with -1 (unknown) do not count.
    """
    a, b = ids[..., :-1], ids[..., 1:]
    differ = a != b
    if ids.dtype.kind == "i":
        differ &= (a >= 0) & (b >= 0)
    zero = int(np.count_nonzero(differ & ((a == 0) | (b == 0))))
    return int(np.count_nonzero(differ)) - zero, zero


def _seen(found: Facts, least: Any, piece: Array) -> tuple[Facts, Any]:
    """Update the facts, and the smallest value above 0, with one more piece."""
    low, high = piece.min(), piece.max()
    above = piece[piece > 0]
    if above.size:
        least = above.min() if least is None else min(least, above.min())
    kind = piece.dtype.kind
    return replace(
        found,
        low=low if found.low is None else np.minimum(found.low, low),
        high=high if found.high is None else np.maximum(found.high, high),
        whole=found.whole and (kind != "f" or bool((piece == np.trunc(piece)).all())),
        two_valued=found.two_valued and (kind in "bu" or bool(low >= 0)),
        near_top=found.near_top or (kind in "iu" and bool((piece == np.iinfo(piece.dtype).max - 1).any())),
    ), least


def pieces_of(lazy: Lazy) -> Iterator[tuple[Box, Array]]:
    """Yield the array in boxes of whole chunks, x fastest, and read a few boxes ahead."""
    size, begin = vec3(lazy.shape[-3:]), lazy.window.begin
    step = _step(lazy, size)
    cuts = [
        [0, *range(n - b % n, whole, n)] for n, b, whole in zip(step, begin, size, strict=True)
    ]  # at chunk borders of the stored array
    boxes = (
        Box((z, y, x), (to_z, to_y, to_x))
        for z, to_z in _spans(cuts[0], size[0])
        for y, to_y in _spans(cuts[1], size[1])
        for x, to_x in _spans(cuts[2], size[2])
    )
    with ThreadPoolExecutor(READERS if lazy.remote else 1) as pool:
        waiting: list[tuple[Box, Future[Array]]] = []
        for box in boxes:
            waiting.append((box, pool.submit(lazy.read, box)))
            if len(waiting) > READERS:
                yield waiting[0][0], waiting.pop(0)[1].result()
        for box, future in waiting:
            yield box, future.result()


def _spans(cuts: list[int], end: int) -> list[tuple[int, int]]:
    return list(zip(cuts, [*cuts[1:], end], strict=True))


def _step(lazy: Lazy, size: Vec3) -> Vec3:
    """Return the size of a piece: several chunks, extended first along x, then y, then z."""
    room = PIECE_BYTES // max(lazy.dtype.itemsize * lazy.channels, 1)
    step = list(lazy.chunks)
    for axis in (2, 1, 0):
        others = int(np.prod(step)) // step[axis]
        most = max(room // others // lazy.chunks[axis], 1) * lazy.chunks[axis]
        step[axis] = min(most, -(-size[axis] // lazy.chunks[axis]) * lazy.chunks[axis])
    return vec3(step)


def _places(lazy: Lazy) -> Iterator[Path]:
    """Yield the paths at which the facts may be saved, in order of preference."""
    file, key = split_path(lazy.path)
    told = json.dumps([key, [*lazy.window], VERSION])
    if not lazy.remote:
        path = Path(file).absolute()
        digest = hashlib.sha1(told.encode()).hexdigest()[:12]
        yield path.with_name(f".{path.name}.{digest}.facts.npz")
        file = os.path.realpath(path)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "deepem", "facts")
    yield cache / f"{hashlib.sha1(f'{file} {told}'.encode()).hexdigest()}.npz"


def _kept(place: Path, known: str) -> Facts | None:
    """Load the facts from a file if they belong to the current data, else return None."""
    with suppress(OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile):
        with np.load(place, allow_pickle=False) as held:
            told, blocks = json.loads(str(held["facts"])), held["blocks"]
        if told.pop("identity") == known:
            dtype = np.dtype(told.pop("dtype"))
            low, high = (np.array(told.pop(name), dtype)[()] for name in ("low", "high"))
            return Facts(shape=tuple(told.pop("shape")), dtype=dtype, low=low, high=high, blocks=blocks, **told)
    return None


def _keep(place: Path, known: str, facts: Facts) -> None:
    told = {name: getattr(facts, name) for name in facts.__dataclass_fields__ if name != "blocks"}
    told |= {"dtype": facts.dtype.str, "low": facts.low.item(), "high": facts.high.item(), "identity": known}
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as beside, open(beside, "wb") as file:
        np.savez_compressed(file, facts=np.array(json.dumps(told)), blocks=facts.blocks)
