#!/usr/bin/env python
"""Draw one picture of a run: image, truth, prediction and loss curves.

    python scripts/figure.py --image data/t1/img.h5 --truth data/t1 --metrics experiments/E/logs/metrics.jsonl
        --out figure.png experiments/E/forward/t1_affinity_1000.h5 experiments/E/forward/t1_mitochondria_1000.h5

Needs matplotlib (the extra view).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _panels import KINDS, Panel, colour_of, marked, named_after

from deepem.build.cases import Case
from deepem.evaluate import adapted_rand
from deepem.tasks import TASKS
from deepem.tools import output
from deepem.tools.predictions import Prediction, laid, opened_case, opened_prediction, opened_there
from deepem.utils.errors import InputError

INK = "#262626"
LINES = ("#d1495b", "#00798c", "#edae49", "#66a182", "#2e4057", "#8d6a9f")
WIDE = 4.0  # inches of one panel


def panels(options: argparse.Namespace) -> tuple[list[Panel], float | None]:
    """The pictures of all predictions, and the length of a voxel in nm along x."""
    with ExitStack() as stack:
        predictions = [stack.enter_context(opened_prediction(str(file))) for file in options.predictions]
        cases = [stack.enter_context(opened_case(p, str(options.truth)))[0] for p in predictions]
        first, whole = predictions[0], cases[0].whole
        for p in predictions:
            if (p.size, p.offset) != (first.size, first.offset):
                raise InputError(p.file, f"another place than {first.file}", "predictions of the same voxels")
        stored = stack.enter_context(opened_there(str(options.image)))
        image = laid(stored, first.size, first.offset, first.file).read(whole)[0]
        grey_volume = image / 255 if image.dtype == np.uint8 else image
        z = richest(cases) if options.z is None else options.z
        if not 0 <= z < len(grey_volume):
            raise InputError("--z", z, f"a section from 0 to {len(grey_volume) - 1}")
        low, high = np.percentile(grey_volume[z], [0.5, 99.5])
        grey = np.clip((grey_volume[z] - low) / max(high - low, 1e-6), 0, 1)
        found = [Panel("image", f"section {z + first.offset[0]}", grey)]
        for case in cases:
            found += KINDS[case.task.kind].panels(case, grey, z)
        if options.segmentation is not None:
            found.append(segments_panel(stack, options.segmentation, cases, predictions, grey, z))
        return found, first.voxel_size_nm[2] if first.voxel_size_nm else None


def segments_panel(
    stack: ExitStack, file: Path, cases: Sequence[Case], predictions: Sequence[Prediction], grey: Any, z: int
) -> Panel:
    """The segments that deepem segment wrote, in the colours of the true cells, and their score."""
    stored, first = stack.enter_context(opened_there(str(file))), predictions[0]
    ids = laid(stored, first.size, first.offset, first.file).read(cases[0].whole)[0]
    truth = next((case.truth(case.whole)[0] for case in cases if case.label == "seg"), None)
    note, found = "", np.unique(ids, return_inverse=True)[1].reshape(ids.shape)
    if truth is not None:
        found = named_after(found, truth)
        note = f"adapted Rand error {adapted_rand(ids, truth)['error']:.3f}, {stored.attributes.get('segments', '')}"
    return Panel("segmentation", note, marked(grey, colour_of(found[z]), ids[z] > 0))


def richest(cases: Sequence[Case]) -> int:
    """The section with most of the structures that outputs should find; the middle one where there are none."""
    best = np.zeros(cases[0].size[0])
    for case in cases:
        best = best + KINDS[case.task.kind].share(case)
    return int(np.argmax(best)) if best.any() else len(best) // 2


def rows_of(metrics: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl."""
    try:
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError("--metrics", f"{metrics}: {error}", "the logs/metrics.jsonl of a run") from error
    if not all(isinstance(row, dict) and _number(row.get("iter")) and "phase" in row for row in rows):
        raise InputError("--metrics", f"{metrics}: a line that is no row", "the logs/metrics.jsonl of a run")
    return rows


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


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
    parser.add_argument("--segmentation", type=Path, help="label volume that deepem segment wrote")
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
        sys.stderr.write(f"{parser.prog}: error: {error.name} is not installed: pip install 'deepem[view]'\n")
        raise SystemExit(2) from None
    except (InputError, FileNotFoundError) as error:
        sys.stderr.write(f"{parser.prog}: error: {error}\n")
        raise SystemExit(2) from None
    print(options.out)


if __name__ == "__main__":
    main()
