#!/usr/bin/env python
"""Draw one picture of a run: image, truth, prediction and loss curves.

    python scripts/figure.py --image data/t1/img.h5 --truth data/t1 --metrics experiments/E/logs/metrics.jsonl
        --out figure.png experiments/E/forward/t1_affinity_1000.h5 experiments/E/forward/t1_mitochondria_1000.h5

Needs matplotlib (the extra viz).
"""

from __future__ import annotations

import argparse
import colorsys
import importlib.util
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deepem.data import emio
from deepem.tasks import TASKS
from deepem.tools import evaluate, output, scoring
from deepem.utils.errors import InputError

INK = "#262626"
LINES = ("#d1495b", "#00798c", "#edae49", "#66a182", "#2e4057", "#8d6a9f")
MARK = (1.0, 0.72, 0.0)  # of structures that are marked on the grey image
NEAREST = {(0, 0, 1), (0, 1, 0), (1, 0, 0)}  # the edges that waterz wants, of either sign
WIDE = 4.0  # inches of one panel


@dataclass(frozen=True)
class Panel:
    """One section to show: grey or (Y, X, 3) in [0, 1], with a title and a line below it."""

    title: str
    note: str
    picture: scoring.Array


def marked(grey: scoring.Array, colours: scoring.Array, strength: scoring.Array) -> scoring.Array:
    """Colours (Y, X, 3) over a grey section, as strongly as `strength` (Y, X) says."""
    weight = np.clip(strength, 0, 1)[..., None] * 0.6
    return np.clip((1 - weight) * grey[..., None] + weight * colours, 0, 1)


def colour_of(names: scoring.Array) -> scoring.Array:
    """A bright colour for each id, (..., 3), the same for the same id; black for 0."""
    ids, at = np.unique(names, return_inverse=True)
    hues = (ids.astype(np.float64) * 0.61803398875) % 1  # golden ratio: neighbours in number are far apart in hue
    shades = 0.75 + 0.25 * ((ids.astype(np.float64) * 0.754877666) % 1)
    table = [colorsys.hsv_to_rgb(h, 0.85, v) if i else (0, 0, 0) for i, h, v in zip(ids, hues, shades, strict=True)]
    return np.array(table)[at].reshape(*names.shape, 3)


def named_after(found: scoring.Array, truth: scoring.Array) -> scoring.Array:
    """Segments renamed so that the largest part of every true object has its id, hence its colour.

    What a segment takes of other objects, and the other parts of an object, then stand out.
    """
    pairs, sizes = np.unique(np.stack([found.ravel(), truth.ravel()]), axis=1, return_counts=True)
    names: dict[int, int] = {0: 0}
    taken = {0}
    for (segment, name), _ in sorted(zip(pairs.T.tolist(), sizes.tolist(), strict=True), key=lambda row: -row[1]):
        if segment not in names and name not in taken:
            names[segment] = name
            taken.add(name)
    free = int(truth.max()) + 1
    renamed = [names.get(segment, free + i) for i, segment in enumerate(np.unique(found).tolist())]
    return np.array(renamed)[np.unique(found, return_inverse=True)[1]].reshape(found.shape)


def segmented(p: evaluate.Prediction, ids: scoring.Array) -> tuple[str, scoring.Array, float]:
    """What is made of affinities: the way, the segments, and the least adapted Rand error of all ways there are."""
    size = p.voxel_size_nm or (1, 1, 1)
    swept = {"components": list(scoring.by_components(p.array, p.edges, evaluate.COMPONENTS_AT, size))}
    if importlib.util.find_spec("waterz") and {tuple(map(abs, edge)) for edge in p.edges} >= NEAREST:
        swept["waterz"] = scoring.by_waterz(p.array, p.edges, evaluate.WATERZ_AT)
    best = {way: evaluate.best(pairs, ids, None) for way, pairs in swept.items()}
    way = min(best, key=lambda name: np.nan_to_num(best[name]["are"], nan=9))
    return way, dict(swept[way])[best[way]["threshold"]], best[way]["are"]


def affinity_panels(p: evaluate.Prediction, grey: scoring.Array, ids: scoring.Array, z: int) -> list[Panel]:
    """True cells, affinities and segments of one section."""
    way, found, error = segmented(p, ids)
    found = named_after(found, ids)
    ranked = [scoring.cut_edges(channel, edge, ids) for channel, edge in zip(p.array, p.edges, strict=True)]
    precision = np.mean([ranking.average_precision() for ranking in ranked])
    edges = " ".join("({},{},{})".format(*edge) for edge in p.edges[:3])
    cells = len(np.unique(ids[ids > 0]))
    return [
        Panel("true cells", f"{cells} in the volume", marked(grey, colour_of(ids[z]), ids[z] > 0)),
        Panel("predicted affinity", f"red, green, blue: edges {edges}", np.moveaxis(p.array[:3, z], 0, -1)),
        Panel(
            "its segments",
            f"cut edges: average precision {precision:.2f}\nadapted Rand error {error:.3f} ({way})",
            marked(grey, colour_of(found[z]), found[z] > 0),
        ),
    ]


def binary_panels(p: evaluate.Prediction, grey: scoring.Array, truth: scoring.Array, z: int) -> list[Panel]:
    """Truth and probability of the first channel of one section, marked on the image."""
    ranking = scoring.Ranking.of(p.array[0], truth[0] > 0)
    name = p.task.name.replace("_", " ")
    colour = np.broadcast_to(MARK, (*grey.shape, 3))
    return [
        Panel(f"true {name}", f"{ranking.share:.1%} of the voxels", marked(grey, colour, truth[0, z] > 0)),
        Panel(f"predicted {name}", f"ROC AUC {ranking.auc():.3f}", marked(grey, colour, p.array[0, z])),
    ]


def panels(options: argparse.Namespace) -> tuple[list[Panel], float | None]:
    """The pictures of all predictions, and the length of a voxel in nm along x."""
    predictions = [evaluate.Prediction.read(file) for file in options.predictions]
    first = predictions[0]
    image = first.crop(emio.imread(options.image), options.image)
    image = image[0] if image.ndim == 4 else image
    grey_volume = image / 255 if image.dtype == np.uint8 else image
    truths = [evaluate.truth_of(p, options.truth)[:2] for p in predictions]
    z = richest(predictions, truths) if options.z is None else options.z
    if not 0 <= z < len(grey_volume):
        raise InputError("--z", z, f"a section from 0 to {len(grey_volume) - 1}")
    low, high = np.percentile(grey_volume[z], [0.5, 99.5])
    grey = np.clip((grey_volume[z] - low) / max(high - low, 1e-6), 0, 1)
    found = [Panel("image", f"section {z + first.offset[0]}", grey)]
    for p, (truth, label) in zip(predictions, truths, strict=True):
        if p.array.shape[1:] != first.array.shape[1:] or p.offset != first.offset:
            raise InputError(p.file, f"another place than {first.file}", "predictions of the same voxels")
        if p.task.kind == "affinity":
            found += affinity_panels(p, grey, truth[0], z)
        else:
            found += binary_panels(p, grey, evaluate.events(p, truth, label), z)
    return found, first.voxel_size_nm[2] if first.voxel_size_nm else None


def richest(predictions: Sequence[evaluate.Prediction], truths: Sequence[tuple[scoring.Array, str]]) -> int:
    """The section with most of what binary outputs should find; the middle one where there are none."""
    found = [np.zeros(predictions[0].array.shape[1])]
    for p, (truth, label) in zip(predictions, truths, strict=True):
        if p.task.kind != "affinity":
            share = evaluate.events(p, truth, label).sum((0, 2, 3))
            found.append(share / max(share.sum(), 1))
    best = np.sum(found, axis=0)
    return int(np.argmax(best)) if best.any() else len(best) // 2


def rows_of(metrics: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl."""
    try:
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError("--metrics", f"{metrics}: {error}", "the logs/metrics.jsonl of a run") from error
    if not all(isinstance(row, dict) and {"iter", "phase"} <= row.keys() for row in rows):
        raise InputError("--metrics", f"{metrics}: a line that is no row", "the logs/metrics.jsonl of a run")
    return rows


def curves(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Loss per voxel of every head: training as lines, evaluation as dots."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    heads = dict.fromkeys(task.name for task in TASKS if any(task.name in row for row in rows))
    styles = {"train": {"lw": 1.6, "alpha": 0.9}, "test": {"lw": 0, "marker": "o", "ms": 4.5}}
    for name, colour in zip(heads, LINES * 2, strict=False):
        for phase, style in styles.items():
            points = [(row["iter"], row[name]) for row in rows if row["phase"] == phase and name in row]
            if points:
                x, y = zip(*thinned(points, phase), strict=True)
                axes.plot(x, y, color=colour, label=f"{name.replace('_', ' ')}, {phase}", **style)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    axes.set_yscale("log")
    axes.yaxis.tick_right()  # on the left they would push the panels above apart
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("iteration", color=INK)
    axes.set_title("loss per labelled voxel", loc="left", fontsize=11, color=INK)
    axes.grid(axis="y", color="#e6e6e6", lw=0.6)
    axes.spines[["top", "left"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=9)


def thinned(points: list[tuple[int, float]], phase: str, most: int = 60) -> list[tuple[int, float]]:
    """Training points averaged over equal spans of iterations, at most `most`, so that the line can be read.

    No span is shorter than that of the last row, which averages many steps where the first ones hold one each.
    """
    if phase == "test" or len(points) < 2:
        return points
    x, y = np.array(points).T
    span = max(x[-1] / most, x[-1] - x[-2])
    groups = np.ceil(x / span)
    return [(int(x[groups == g].max()), float(y[groups == g].mean())) for g in np.unique(groups)]


def draw(
    found: Sequence[Panel], metrics: Sequence[dict[str, Any]] | None, voxel_nm: float | None, title: str, out: Path
) -> None:
    """Lay the panels out in rows of four, the curves of the metrics' rows in what is left of the last row."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = 4
    rest = -len(found) % columns
    rows = -(-len(found) // columns) + (metrics is not None and rest < 2)
    height, width = found[0].picture.shape[:2]
    figure = plt.figure(
        figsize=(columns * WIDE, rows * (WIDE * min(max(height / width, 0.6), 1.4) + 0.75)), layout="constrained"
    )
    grid = figure.add_gridspec(rows, columns)
    for i, panel in enumerate(found):
        axes = figure.add_subplot(grid[divmod(i, columns)])
        axes.imshow(panel.picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(panel.title, loc="left", fontsize=11, color=INK)
        axes.set_xlabel(panel.note, loc="left", fontsize=8.5, color="#606060")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if i == 0 and voxel_nm:
            scale_bar(axes, height, width, voxel_nm)
    if metrics is not None:
        start = columns - rest if rest >= 2 else 0
        curves(figure.add_subplot(grid[rows - 1, start:]), metrics)
    if title:
        figure.suptitle(title, x=0.008, ha="left", fontsize=13, color=INK)
    with output.writing("--out", out):
        figure.savefig(out, dpi=110, facecolor="white")
    plt.close(figure)


def check_out(out: Path) -> None:
    """Refuse a picture that could not be written, before it is drawn."""
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    if out.suffix[1:].lower() not in {"", *kinds}:
        raise InputError("--out", out, f"a name that ends in one of {', '.join(kinds)}")
    output.check_file("--out", out)


def scale_bar(axes: Any, height: int, width: int, voxel_nm: float) -> None:
    """A bar of a round length, about a fifth of the panel."""
    most = width * voxel_nm / 4
    nm = max(n * 10**e for n in (1, 2, 5) for e in range(7) if n * 10**e <= most)
    x, y = width * 0.05, height * 0.93
    axes.plot([x, x + nm / voxel_nm], [y, y], color="white", lw=4, solid_capstyle="butt")
    axes.text(x, y - height * 0.025, f"{nm / 1000:g} µm" if nm >= 1000 else f"{nm} nm", color="white", fontsize=9.5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and draw."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("figure.py", description=__doc__, formatter_class=as_written)
    parser.add_argument("predictions", nargs="+", type=Path, metavar="PREDICTION", help="HDF5 output of deepem forward")
    parser.add_argument("--image", required=True, type=Path, help="the volume that was predicted")
    parser.add_argument("--truth", required=True, type=Path, help="folder with seg.h5, mit.h5, ...")
    parser.add_argument("--metrics", type=Path, help="metrics.jsonl of the run")
    parser.add_argument("--out", type=Path, default=Path("figure.png"))
    parser.add_argument("--z", type=int, help="section (default: the one with most structures)")
    parser.add_argument("--title", default="")
    options = parser.parse_args(arguments)
    try:
        check_out(options.out)
        rows = None if options.metrics is None else rows_of(options.metrics)
        found, voxel_nm = panels(options)
        draw(found, rows, voxel_nm, options.title, options.out)
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{parser.prog}: error: {error.name} is not installed: pip install 'deepem[viz]'\n")
        raise SystemExit(2) from None
    except (InputError, FileNotFoundError) as error:
        sys.stderr.write(f"{parser.prog}: error: {error}\n")
        raise SystemExit(2) from None
    print(options.out)


if __name__ == "__main__":
    main()
