"""Compose what neuroglancer shows: layers in their places, panels, position and zoom.

neuroglancer's axes are x, y, z and its positions are voxels of the first layer; everything else here is z, y, x. Each
layer is placed by its own voxel size and offset.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem import tasks
from deepem.tools.view_layers import Layer
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3
from deepem.utils.palette import class_colours

UNKNOWN = 2**64 - 1
"""The id -1 (unknown) as uint64."""

BUDGET = 2**28
"""About how many bytes the first view reads at most, so that it shows a small part of a large volume soon."""

MARGIN = 1.04
"""Size of the first view in sizes of what it shows."""

PANELS: Mapping[str, tuple[tuple[int, int], tuple[tuple[int, int], ...]]] = {
    "4panel": ((2, 2), ((2, 1), (2, 0), (0, 1))),
    "xy": ((1, 1), ((2, 1),)),
    "xz": ((1, 1), ((2, 0),)),
    "yz": ((1, 1), ((0, 1),)),
    "3d": ((1, 1), ((2, 1), (2, 0))),
}
"""Layout -> panels per (row, column), and the (horizontal, vertical) axes, as indices into z, y, x, that they show."""

BESIDE = "beside"
"""The layout in which every layer has its own panel, in xy."""


@dataclass(frozen=True)
class View:
    """What to look at.

    Attributes:
        layout: BESIDE or a key of PANELS; None chooses one.
        position: The voxel of the first layer in the centre, (z, y, x); None for the centre of what all layers share.
        zoom: Screen pixels per voxel of the first layer; None for what fits.
        window: Width and height in pixels for which the zoom is chosen.
    """

    layout: str | None = None
    position: Vec3 | None = None
    zoom: float | None = None
    window: tuple[int, int] = (1600, 800)


def panels_of(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Return the layers of each panel in the layout beside: the first image alone, and each other layer over it."""
    base = [layer for layer in layers[:1] if layer.form.base]
    return [*([base] if base else []), *([*base, layer] for layer in layers[len(base) :])]


def layout_of(layers: Sequence[Layer], view: View) -> str:
    """Return the layout: the given one, or beside if layers would cover each other."""
    above = layers[1:] if layers[0].form.base else layers
    covering = len(above) > 1 or (len(layers) > 1 and above[0].form.opaque)
    return view.layout or (BESIDE if covering else "4panel")


def grid_of(count: int) -> tuple[int, int]:
    """Return columns and rows of panels: up to three in one row."""
    columns = count if count <= 3 else math.ceil(math.sqrt(count))
    return columns, -(-count // columns)


def centre_of(layers: Sequence[Layer], view: View) -> NDArray[np.float64]:
    """Return the position in the centre, (z, y, x) voxels of the first layer.

    Raises:
        InputError: the position to look at lies outside the first layer.
    """
    first = layers[0]
    if view.position is None:
        begin, end = shared(layers)
        return np.floor((begin + end) / 2 / first.scale)
    end_voxel = [o + n for o, n in zip(first.offset, first.size, strict=True)]
    if not all(o <= p < e for o, p, e in zip(first.offset, view.position, end_voxel, strict=True)):
        got, wants = ",".join(map(str, view.position)), f"a voxel of {first.name}: z,y,x from {first.offset}"
        raise InputError("--position", got, f"{wants} to {tuple(e - 1 for e in end_voxel)}")
    return np.asarray(view.position, np.float64)


def shared(layers: Sequence[Layer]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return begin and end, (z, y, x) nm, of what all layers cover, or of the first layer."""
    begins, ends = zip(*(layer.extent for layer in layers), strict=True)
    begin, end = np.max(begins, axis=0), np.min(ends, axis=0)
    return (begin, end) if (begin < end).all() else layers[0].extent


def nm_per_pixel(layers: Sequence[Layer], view: View) -> float:
    """Return the size of a screen pixel in nm: the given zoom, else one at which what all layers share fits.

    Of a large volume, it shows as much as BUDGET allows.
    """
    first = layers[0]
    if view.zoom is not None:
        return min(first.scale) / view.zoom
    begin, end = shared(layers)
    layout = layout_of(layers, view)
    columns_rows, planes = (grid_of(len(panels_of(layers))), ((2, 1),)) if layout == BESIDE else PANELS[layout]
    room = [pixels / n for pixels, n in zip(view.window, columns_rows, strict=True)]
    extents = [[(end - begin)[axis] for axis in plane] for plane in planes]
    found = float(max(MARGIN * extent / pixels for both in extents for extent, pixels in zip(both, room, strict=True)))
    while any(_shown(both, room, found) > _budget(layers, plane) for both, plane in zip(extents, planes, strict=True)):
        found *= 0.95
    return found


def _shown(extent: Sequence[float], room: Sequence[float], size: float) -> float:
    """Return the area of a volume, in nm^2, that a panel shows."""
    return math.prod(min(pixels * size, nm) for pixels, nm in zip(room, extent, strict=True))


def _budget(layers: Sequence[Layer], plane: Sequence[int]) -> float:
    """Return the area in a plane, in nm^2, of which all layers together have BUDGET bytes to read."""
    per_voxel = sum(layer.bytes_per_column for layer in layers)
    return BUDGET / max(per_voxel, 1) * math.prod(layers[0].scale[axis] for axis in plane)


def compose(layers: Sequence[Layer], view: View, sources: Mapping[str, Any], state: Any) -> None:
    """Fill a viewer's state.

    Args:
        layers: The layers.
        view: What to look at.
        sources: Layer name -> a data source of neuroglancer.
        state: The state to fill.

    Raises:
        InputError: the position to look at lies outside the first layer.
    """
    import neuroglancer

    first = layers[0]
    known = first.voxel_size_nm is not None
    state.dimensions = neuroglancer.CoordinateSpace(
        names=["x", "y", "z"], units="nm" if known else "", scales=list(first.scale[::-1])
    )
    z, y, x = centre_of(layers, view)
    state.position = [x, y, z + 0.5]  # the middle of a section: its border would be a matter of rounding
    canonical = min(first.scale)
    size = nm_per_pixel(layers, view)
    state.cross_section_scale = size / canonical
    begin, end = shared(layers)
    state.projection_scale = 1.5 * min(float((end - begin).max()), size * max(view.window)) / canonical
    state.projection_background_color = "#000000"
    state.hide_cross_section_background_3d = True
    state.show_scale_bar = known
    for layer in layers:
        make = _segments if layer.form.labels else _values
        state.layers[layer.name] = make(layer, sources[layer.name], len(layers) == 1)
    layout = layout_of(layers, view)
    state.layout = _beside(layers) if layout == BESIDE else layout


def _values(layer: Layer, source: Any, alone: bool) -> Any:
    import neuroglancer

    return neuroglancer.ImageLayer(source=source, shader=layer.shader, opacity=1)


def _segments(layer: Layer, source: Any, alone: bool) -> Any:
    import neuroglancer

    colours = {UNKNOWN: "#606060"} | _class_colours(layer)
    return neuroglancer.SegmentationLayer(
        source=source, selected_alpha=1 if alone else 0.4, not_selected_alpha=0.15, segment_colors=colours
    )


def _class_colours(layer: Layer) -> dict[int, str]:
    """Return the colours of classes by label; empty for instances."""
    task = layer.seen.task
    if task is None or not tasks.KINDS[task.kind].classes:
        return {}
    colours = (255 * class_colours(task.channels)).round().astype(int)
    return {i: "#{:02x}{:02x}{:02x}".format(*rgb) for i, rgb in enumerate(colours) if i}


def _beside(layers: Sequence[Layer]) -> Any:
    import neuroglancer

    panels = [
        neuroglancer.LayerGroupViewer(layers=[layer.name for layer in panel], layout="xy")
        for panel in panels_of(layers)
    ]
    columns, _ = grid_of(len(panels))
    if len(panels) == 1:
        return panels[0]
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    row: Callable[[list[Any]], Any] = neuroglancer.row_layout
    return row(rows[0]) if len(rows) == 1 else neuroglancer.column_layout([row(panels) for panels in rows])
