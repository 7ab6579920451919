"""Segment an array in memory, block by block."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deepem.segment.channels import check_type
from deepem.segment.join import Regions, join
from deepem.segment.label import Read, label_block
from deepem.segment.plan import AFFINITIES, GRAPH, Plan, check_decoder
from deepem.segment.relabel import Ids, assembled, relabel_block, without_small
from deepem.segment.select import group, grow_tree, segment_ids
from deepem.tasks import NEAREST_EDGES
from deepem.utils.errors import InputError, warn
from deepem.utils.geometry import Box, Vec3, vec3

BLOCK: Vec3 = (32, 128, 256)
_THREADS = 8
R = TypeVar("R")
T = TypeVar("T")


def segment(
    probabilities: NDArray[Any],
    *,
    edges: Sequence[Sequence[int]] | None = None,
    decoder: str = "agglomerate",
    threshold: float = 0.5,
    block_size: Sequence[int] | None = None,
    min_size: int = 0,
    mask: NDArray[Any] | None = None,
) -> NDArray[np.uint64]:
    """Segment a volume.

    Args:
        probabilities: (C, Z, Y, X) float in [0, 1], or uint16 over its whole range: affinities for `agglomerate`,
            `mutex` and `components`; one channel of boundaries for `watershed`; one channel of objects for `objects`.
        edges: (dz, dy, dx) of each channel of affinities, which relate v to v - edge; by default x, y, z.
        decoder: `agglomerate` joins watershed fragments by mean affinity; `mutex` also lets long-range affinities keep
            fragments apart; `components` joins voxels; `watershed` grows seeds; `objects` takes connected components of
            voxels. Only `mutex` uses more than the nearest affinities.
        threshold: Affinities above it are joined. For `objects`, probabilities above it are objects; for `watershed`,
            voxels below 1 - threshold are seeds.
        block_size: (z, y, x) voxels. It bounds the memory. The result does not depend on it, except that `watershed` is
            exact only where objects are smaller than the halo of 32 voxels.
        min_size: Segments of fewer voxels become background.
        mask: (Z, Y, X); voxels where it is 0 are background, and nothing is joined through them.

    Returns:
        (Z, Y, X) uint64: the id of a segment is the flat index of its first voxel in the volume, plus 1; 0 is
        background.

    Raises:
        InputError: the arguments do not fit together.
    """
    plan = _plan(probabilities, edges, decoder, threshold, block_size)
    labels, regions = labelled(plan, reader(probabilities), _mask_reader(mask, plan))
    ids = segment_ids(plan, regions, group(plan, regions, threshold), min_size=min_size)
    out = _relabelled(plan, regions, ids, labels, probabilities, mask)
    return without_small(out, min_size) if decoder == "watershed" else out


def sweep(
    probabilities: NDArray[Any],
    thresholds: Iterable[float],
    *,
    edges: Sequence[Sequence[int]] | None = None,
    decoder: str = "agglomerate",
    block_size: Sequence[int] | None = None,
    min_size: int = 0,
    mask: NDArray[Any] | None = None,
) -> Iterator[tuple[float, Ids]]:
    """Yield (threshold, segments) for several thresholds; takes the arguments of `segment`.

    `agglomerate` and `mutex` read the volume once: fragments, region graph and merge tree serve all thresholds.
    """
    thresholds = tuple(thresholds)
    if decoder not in GRAPH:
        given: dict[str, Any] = {"edges": edges, "decoder": decoder, "block_size": block_size, "min_size": min_size}
        for threshold in thresholds:
            yield threshold, segment(probabilities, threshold=threshold, mask=mask, **given)
        return
    plan = _plan(probabilities, edges, decoder, min(thresholds, default=0.5), block_size)
    labels, regions = labelled(plan, reader(probabilities), _mask_reader(mask, plan))
    tree = grow_tree(regions, plan.threshold) if decoder == "agglomerate" else None
    for threshold in thresholds:
        ids = segment_ids(plan, regions, group(plan, regions, threshold, tree), min_size=min_size)
        yield threshold, _relabelled(plan, regions, ids, labels, probabilities, mask)


def labelled(plan: Plan, read: Read, read_mask: Read | None = None) -> tuple[Read, Regions]:
    """Label all blocks and join them. Return a function that reads the labels, and the regions of the volume."""
    blocks = side_by_side(lambda box: label_block(plan, box, read, read_mask), plan.boxes)
    labels, records = [labels for labels, _ in blocks], [record for _, record in blocks]
    regions = join(plan, records.__getitem__, each=side_by_side)
    return lambda area: assembled(plan, area, labels.__getitem__), regions


def side_by_side(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Run a function on all items, on one thread per processor but at most eight. Return the results in order."""
    threads = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _THREADS)
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))


def reader(array: NDArray[Any]) -> Read:
    """Return a function that reads a box of an in-memory array whose last axes are (z, y, x)."""

    def read(box: Box) -> NDArray[Any]:
        z, y, x = box.slices()
        return array[..., z, y, x]

    return read


def _relabelled(
    plan: Plan, regions: Regions, ids: Ids, read_labels: Read, probabilities: NDArray[Any], mask: NDArray[Any] | None
) -> Ids:
    out = np.empty(plan.volume.size, np.uint64)
    read, read_mask = reader(probabilities), _mask_reader(mask, plan)

    def relabel(box: Box) -> None:
        out[box.slices()] = relabel_block(plan, box, regions, ids, read_labels, read, read_mask)

    side_by_side(relabel, plan.boxes)
    return out


def _plan(
    probabilities: NDArray[Any],
    edges: Sequence[Sequence[int]] | None,
    decoder: str,
    threshold: float,
    block_size: Sequence[int] | None,
) -> Plan:
    if probabilities.ndim != 4 or 0 in probabilities.shape:
        raise InputError("probabilities", f"an array {probabilities.shape}", "(C, Z, Y, X), none of them 0")
    check_decoder(decoder)
    check_type(probabilities.dtype)
    if probabilities.dtype == np.uint8:
        warn("probabilities: 256 levels leave plateaus, over which a watershed breaks into many fragments")
    channels, *size = probabilities.shape
    block = BLOCK if block_size is None else vec3(block_size)
    edges = NEAREST_EDGES if edges is None else tuple(vec3(edge) for edge in edges)
    affinities = decoder in AFFINITIES
    if affinities and len(edges) != channels:
        raise InputError("probabilities", f"{channels} channels", f"{len(edges)}, one per edge of {list(edges)}")
    if not affinities and channels != 1:
        raise InputError("probabilities", f"{channels} channels", f"1 for the decoder {decoder}")
    return Plan(Box((0, 0, 0), vec3(size)), block, decoder, edges if affinities else (), threshold)


def _mask_reader(mask: NDArray[Any] | None, plan: Plan) -> Read | None:
    if mask is None:
        return None
    if mask.shape != plan.volume.size:
        raise InputError("mask", f"an array {mask.shape}", f"{plan.volume.size}, the size of the volume")
    return reader(mask)
