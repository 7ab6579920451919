"""Pictures of scores: split against merge over thresholds, and cut-outs of the worst splits and merges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepem.evaluate.overlaps import Array
from deepem.utils import files
from deepem.utils.errors import InputError

INK, PALE = "#262626", "#6b6b6b"
LINES = ("#00798c", "#d1495b", "#edae49", "#66a182", "#8d6a9f")
WHOLE = (0.25, 0.65, 0.95)  # parts of a split object, or of a merging segment
PARTS = ((0.25, 0.65, 0.95), (1.0, 0.55, 0.0), (0.55, 0.8, 0.25), (0.85, 0.35, 0.75), (0.95, 0.85, 0.25))
DEPTH = 64
"""Sections searched for the one where two parts meet."""


Place = tuple[int, slice, slice]
"""A section and the window in it that is shown."""


@dataclass(frozen=True)
class CutOut:
    """One error, in the section that shows it best.

    Attributes:
        title: Name of the error.
        note: Its position and size.
        grey: (Y, X) in [0, 1], the image, or white without one.
        truth: (Y, X, 4) in [0, 1], colour and opacity of the true objects.
        segmentation: (Y, X, 4), the same for the segments.
    """

    title: str
    note: str
    grey: Array
    truth: Array
    segmentation: Array


def cut_outs(
    table: Mapping[str, Any],
    segmentation: Any,
    truth: Any,
    image: Any = None,
    *,
    most: int = 4,
    side: int = 160,
) -> list[CutOut]:
    """Cut out the worst splits, then the worst merges, each in the section where its two largest parts touch most.

    Args:
        table: Result of `objects` for arrays that begin at (0, 0, 0).
        segmentation: (Z, Y, X) ids, an array or anything that can be sliced like one.
        truth: (Z, Y, X) ids, also an array or sliceable.
        image: (Z, Y, X), also an array or sliceable, of any value range; without it the background is white.
        most: Number of splits, and of merges, to cut out.
        side: Voxels shown along y and x.
    """
    found = []
    for kind, whole, part, ids, parts in (
        ("splits", "object", "segment", truth, segmentation),
        ("merges", "segment", "object", segmentation, truth),
    ):
        for row in table[kind][:most]:
            two = sorted(row["largest"], key=lambda p: p[part] == 0)[:2]  # segment 0 comes last
            if len(two) < 2:
                continue
            at = _place(two[1], ids, parts, row[whole], [p[part] for p in two], side)
            named = {p[part]: colour for p, colour in zip(row["largest"], PARTS, strict=False)}
            own, other = _painted(np.asarray(ids[at]), {row[whole]: WHOLE}), _painted(np.asarray(parts[at]), named)
            where = f"z {at[0]}, y {at[1].start}, x {at[2].start}"
            found.append(
                CutOut(
                    f"{whole} {row[whole]} {'cut into' if kind == 'splits' else 'joins'} {row['parts']}",
                    f"{row['voxels']:,} voxels, {row['bits']:.3g} bits, {where}",
                    _grey(image, at, own.shape[:2]),
                    own if kind == "splits" else other,
                    other if kind == "splits" else own,
                )
            )
    return found


def draw(
    out: Path,
    *,
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    chosen: Mapping[str, Any] | None = None,
    ranked: Mapping[float, Mapping[str, Sequence[float]]] | None = None,
    cuts: Sequence[CutOut] = (),
    title: str = "",
) -> None:
    """Write a picture; a file appears only once it is complete.

    Args:
        out: A file that ends in .png (or another format of matplotlib).
        curves: {name: rows of `curve`}, for example one per decoder or volume.
        chosen: The reported row, marked by a ring; the legend says whether it was chosen on this volume.
        ranked: {threshold: {`recall`, `precision`}}, result of `Instances.curves`.
        cuts: Result of `cut_outs`.
        title: Title of the whole picture.

    Raises:
        InputError: matplotlib is not installed, or there is nothing to draw.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise InputError("picture", "no package matplotlib", "pip install 'deepem[view]'") from error
    panels = 2 * bool(curves) + bool(ranked)
    rows = -(-len(cuts) // 2)
    if not panels and not rows:
        raise InputError("picture", "neither curves nor cut-outs", "something to draw")
    heights = [3.6] * bool(panels) + [3.1] * rows
    figure = Figure(figsize=(12.5, sum(heights) + 0.5 * bool(title)), layout="constrained")
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, color=INK)
    bands: Any = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    if panels:
        axes = bands[0].subplots(1, panels, squeeze=False)[0]
        if curves:
            _split_against_merge(axes[0], curves, chosen)
            _errors(axes[1], curves, chosen)
        if ranked:
            _precision_recall(axes[-1], ranked)
    for i in range(rows):
        _pairs(bands[i + bool(panels)], cuts[2 * i : 2 * i + 2])
    kind = out.suffix[1:] or "png"
    with files.replacing(out) as beside:
        figure.savefig(beside, dpi=110, facecolor="white", format=kind)


def colours(ids: Array) -> Array:
    """Colours (..., 3) for ids, a fixed one per id; computed in 64-bit integers, so that large ids stay distinct."""
    mixed = ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # golden ratio: hues of consecutive ids are far apart
    hue = (mixed >> np.uint64(40)).astype(np.float64)[..., None] / 2**24
    return np.asarray(0.62 + 0.3 * np.cos(2 * np.pi * (hue + np.array([0, 1 / 3, 2 / 3]))))


def _place(second: Mapping[str, Any], ids: Any, parts: Any, name: int, two: list[int], side: int) -> Place:
    """Return the section, and the window in it, where the second part touches the first one most."""
    shape = ids.shape
    middle = (second["begin"][0] + second["end"][0]) // 2
    begin = [max(second["begin"][0] - 1, middle - DEPTH // 2, 0), *(max(b - 1, 0) for b in second["begin"][1:])]
    end = [min(second["end"][0] + 1, begin[0] + DEPTH), *(e + 1 for e in second["end"][1:])]
    box = tuple(slice(b, min(e, n)) for b, e, n in zip(begin, end, shape, strict=True))
    inside = np.asarray(ids[box]) == ids.dtype.type(name)
    one, other = (inside & (np.asarray(parts[box]) == parts.dtype.type(part)) for part in two)
    touching = np.zeros(one.shape, bool)
    for axis in (1, 2):
        low, high = (tuple(slice(*s) if a == axis else slice(None) for a in range(3)) for s in ((None, -1), (1, None)))
        touching[low] |= other[low] & one[high]
        touching[high] |= other[high] & one[low]
    shown = touching if touching.any() else other
    z = int(np.argmax(shown.sum((1, 2))))
    window = []
    for axis, positions in enumerate(np.nonzero(shown[z]), 1):
        centre = begin[axis] + int(np.median(positions)) if positions.size else (begin[axis] + end[axis]) // 2
        first = max(0, min(centre - side // 2, shape[axis] - side))
        window.append(slice(first, min(first + side, shape[axis])))
    return begin[0] + z, window[0], window[1]


def _painted(ids: Array, named: Mapping[int, tuple[float, float, float]]) -> Array:
    """Colours and opacity (Y, X, 4): bright for the ids in question, faint for others, transparent for 0."""
    painted = np.zeros((*ids.shape, 4))
    painted[..., :3] = colours(ids)
    painted[..., 3] = np.where(ids == 0, 0, 0.18)
    for name, colour in named.items():
        here = ids == ids.dtype.type(name)
        painted[here] = (*colour, 0.62 if name else 0.3)
    edges = np.zeros(ids.shape, bool)
    edges[1:] |= ids[1:] != ids[:-1]
    edges[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    painted[edges, :3] *= 0.45
    painted[edges, 3] = 0.7
    return painted


def _grey(image: Any, at: Place, shape: Any) -> Array:
    if image is None:
        return np.ones(shape)
    section = np.asarray(image[at], np.float64)
    low, high = np.percentile(section, [0.5, 99.5])
    return np.asarray(np.clip((section - low) / max(high - low, 1e-9), 0, 1))


def _split_against_merge(axes: Any, curves: Mapping[str, Sequence[Mapping[str, Any]]], chosen: Any) -> None:
    for (name, rows), colour in zip(curves.items(), LINES * len(curves), strict=False):
        rows = sorted(rows, key=lambda row: row["threshold"])
        x, y = [row["merge"] for row in rows], [row["split"] for row in rows]
        axes.plot(x, y, color=colour, marker="o", ms=4, lw=1.4, label=name)
        for row in (rows[0], rows[-1]):
            axes.annotate(
                f"{row['threshold']:g}",
                (row["merge"], row["split"]),
                (4, 4),
                textcoords="offset points",
                fontsize=8,
                color=PALE,
            )
    if chosen and {"split", "merge"} <= chosen.keys():
        axes.plot(chosen["merge"], chosen["split"], "o", ms=11, mfc="none", mec=INK, mew=1.4, label=_reported(chosen))
    _dressed(axes, "variation of information", "merge, bits", "split, bits")


def _errors(axes: Any, curves: Mapping[str, Sequence[Mapping[str, Any]]], chosen: Any) -> None:
    for (name, rows), colour in zip(curves.items(), LINES * len(curves), strict=False):
        rows = sorted(rows, key=lambda row: row["threshold"])
        axes.plot(
            [r["threshold"] for r in rows],
            [r["error"] for r in rows],
            color=colour,
            marker="o",
            ms=4,
            lw=1.4,
            label=name,
        )
    if chosen and "error" in chosen:
        axes.plot(
            chosen["threshold"], chosen["error"], "o", ms=11, mfc="none", mec=INK, mew=1.4, label=_reported(chosen)
        )
    _dressed(axes, "adapted Rand error", "threshold", "error")


def _precision_recall(axes: Any, ranked: Mapping[float, Mapping[str, Sequence[float]]]) -> None:
    for (threshold, curve), colour in zip(ranked.items(), LINES * len(ranked), strict=False):
        axes.plot(
            curve["recall"], curve["precision"], color=colour, lw=1.4, drawstyle="steps-pre", label=f"IoU {threshold:g}"
        )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    _dressed(axes, "objects by falling score", "recall", "precision")


def _reported(chosen: Mapping[str, Any]) -> str:
    where = "on this volume itself" if chosen.get("own_truth") else "on another volume"
    return f"{chosen['threshold']:g}, chosen {where}" if "chosen_by" in chosen else f"{chosen['threshold']:g}"


def _dressed(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x, color=INK, fontsize=9)
    axes.set_ylabel(y, color=INK, fontsize=9)
    axes.grid(color="#e6e6e6", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)


def _pairs(band: Any, cuts: Sequence[CutOut]) -> None:
    """Draw one row of the picture: truth beside segmentation, for two errors."""
    axes = band.subplots(1, 4)
    for panel in axes:
        panel.axis("off")
    for i, cut in enumerate(cuts):
        for panel, layer, name in (
            (axes[2 * i], cut.truth, "truth"),
            (axes[2 * i + 1], cut.segmentation, "segmentation"),
        ):
            panel.imshow(cut.grey, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            panel.imshow(layer, interpolation="nearest")
            panel.text(0.5, -0.02, name, transform=panel.transAxes, ha="center", va="top", fontsize=8.5, color=PALE)
        axes[2 * i].set_title(f"{cut.title}\n{cut.note}", loc="left", fontsize=9, color=INK)
