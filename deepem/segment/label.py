"""Phase 1: turn a block of probabilities into regions, and record how they continue in neighbouring blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.segment.channels import AXES, FULL, level, nearest, quantise
from deepem.segment.connected import above_level, components
from deepem.segment.fragments import across, fragments, steepest
from deepem.segment.graph import Table, tabulate
from deepem.segment.plan import GRAPH, Plan
from deepem.segment.records import Record, over_faces, shells_of
from deepem.segment.runs import measured
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box

Read = Callable[[Box], NDArray[Any]]
"""Function that reads a box of the volume: probabilities (C, Z, Y, X), or a mask or labels (Z, Y, X)."""

Labels = NDArray[np.unsignedinteger[Any]]


def label_block(plan: Plan, box: Box, read: Read, read_mask: Read | None = None) -> tuple[Labels, Record]:
    """Label one block.

    Args:
        plan: The segmentation.
        box: One of `plan.boxes`.
        read: Reads probabilities; called once, with `plan.reads(box)`.
        read_mask: Reads a mask; voxels where it is 0 are background, and nothing is joined through them.

    Returns:
        The regions of the block, (Z, Y, X) unsigned from 1, and its record.

    Raises:
        InputError: the probabilities do not fit the plan.
    """
    area = plan.reads(box)
    values = quantise(_checked(read(area), plan, area))
    mask = None if read_mask is None else np.asarray(read_mask(area)) != 0
    if plan.affinities:
        return _label_affinities(plan, box, area, values, mask)
    return _label_voxels(plan, box, inside(plan, values[0], mask))


def inside(plan: Plan, values: NDArray[np.uint16], mask: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    """Voxels of objects, or of watershed seeds: those above the threshold and within the mask."""
    above = values < FULL - level(plan.threshold) if plan.decoder == "watershed" else values > level(plan.threshold)
    return above if mask is None else above & mask


def _label_affinities(
    plan: Plan, box: Box, area: Box, values: NDArray[np.uint16], mask: NDArray[np.bool_] | None
) -> tuple[Labels, Record]:
    near = nearest(values, plan.channels, mask)
    core = box.shift(-b for b in area.begin).slices()
    labels, count, joined = _regions(plan, box, area, near)
    sizes, firsts = measured(labels, count)
    near = near[:, core[0], core[1], core[2]]
    far = [(edge, values[channel][core]) for channel, edge in plan.far]  # outside the mask are no regions
    graph = plan.decoder in GRAPH
    faces, far_faces = (over_faces(plan, box, edges) for edges in (AXES, tuple(edge for edge, _ in far)))
    record = Record(
        firsts=plan.voxels(box, firsts),
        sizes=sizes,
        extents=np.zeros((0, 6), np.int64),
        near=tabulate(labels, zip(AXES, near, strict=True)) if graph else Table.empty(),
        far=tabulate(labels, far) if far else Table.empty(),
        shells=shells_of(labels, box, plan.reach),
        joined=joined,
        near_values=_flat([near[axis][_within(box, seam)] for axis, seam in faces] if graph else []),
        far_values=_flat([far[i][1][_within(box, seam)] for i, seam in far_faces]),
    )
    return labels, record


def _regions(plan: Plan, box: Box, area: Box, near: NDArray[np.uint16]) -> tuple[Labels, int, NDArray[np.bool_]]:
    """Fragments or components of a block, their number, and which pairs of voxels across its faces are joined."""
    core = box.shift(-b for b in area.begin).slices()
    faces = [(axis, _within(area, seam), _within(area, seam.shift(-d for d in AXES[axis])))
             for axis, seam in over_faces(plan, box, AXES)]  # fmt: skip
    if plan.decoder == "components":
        kept, foreground = above_level(near, level(plan.threshold))
        joined = [(kept[here] & 1 << axis) > 0 for axis, here, _ in faces]
        return *components(np.ascontiguousarray(kept[core]), foreground[core]), _flat(joined).astype(bool)
    steep = steepest(near)
    joined = [across(steep[here], steep[there], axis) for axis, here, there in faces]
    return *fragments(steep[core]), _flat(joined).astype(bool)


def _label_voxels(plan: Plan, box: Box, foreground: NDArray[np.bool_]) -> tuple[Labels, Record]:
    try:
        import cc3d
    except ImportError:
        raise InputError("connected-components-3d", "not installed", "pip install deepem") from None
    labels: Labels = cc3d.connected_components(foreground, connectivity=26 if plan.corners else 6, out_dtype=np.uint32)
    statistics = cc3d.statistics(labels, no_slice_conversion=True)
    sizes, firsts = measured(labels, len(statistics["voxel_counts"]) - 1)
    bounds = statistics["bounding_boxes"][1:].astype(np.int64)  # z0, z1, y0, y1, x0, x1, ends inclusive
    extents = np.concatenate([bounds[:, ::2] + box.begin, bounds[:, 1::2] + 1 + box.begin], axis=1)
    pairs = sum(seam.voxels for _, seam in over_faces(plan, box, plan.joins))
    record = Record(
        firsts=plan.voxels(box, firsts),
        sizes=sizes,
        extents=extents,
        near=Table.empty(),
        far=Table.empty(),
        shells=shells_of(labels, box, plan.reach),
        joined=np.ones(pairs, bool),  # two foreground voxels belong together
        near_values=np.zeros(0, np.uint16),
        far_values=np.zeros(0, np.uint16),
    )
    return labels, record


def _checked(values: NDArray[Any], plan: Plan, area: Box) -> NDArray[Any]:
    wants = (len(plan.edges) if plan.affinities else 1, *area.size)
    if values.shape != wants:
        raise InputError("probabilities", f"an array {values.shape} for {area}", f"{wants}")
    return values


def _within(box: Box, seam: Box) -> tuple[slice, slice, slice]:
    return seam.shift(-b for b in box.begin).slices()


def _flat(parts: list[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate([part.ravel() for part in parts]) if parts else np.zeros(0, np.uint16)
