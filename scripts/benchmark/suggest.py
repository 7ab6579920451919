#!/usr/bin/env python3
"""Which choice of cut-outs teaches most: score against annotated voxels, by entropy, variance, random choice and grid.

    python scripts/benchmark/suggest.py --out suggest.png

On synthetic tissue with the truth as annotator, mitochondria. Each seed has a pool to choose from and a volume of its
own to be scored on; all choices begin with the same cut-outs and have the same number of optimiser steps.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from deepem.data.synth.volume import make_volume
from deepem.evaluate import binary
from deepem.io.files import imread, imsave
from deepem.test import forward
from deepem.tools import suggest
from deepem.train import run

CHOICES = ("entropy", "variance", "random", "grid")
POOL, HELD_OUT, SIZE = (32, 192, 192), (24, 160, 160), "8,32,32"


def quietly(main, words: list[object]) -> None:
    """Call a program without its output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main([str(word) for word in words])


def annotate(truth: dict[str, np.ndarray], number: int) -> int:
    """Write the truth of a round beside its images, and return how many voxels that is."""
    rows = json.loads(Path(f"rounds/round{number}.json").read_text())["cutouts"]
    for row in rows:
        shape = imread(f"rounds/{row['id']}/img.h5").shape
        part = tuple(slice(b, b + n) for b, n in zip(row["corner"], shape, strict=True))
        imsave(truth["mit"][part], f"rounds/{row['id']}/mit.h5")
    return sum(int(np.prod(row["size"])) for row in rows)


def curve(by: str, seed: int, rounds: int, count: int, steps: int) -> list[tuple[int, float]]:
    """(annotated voxels, average precision) after each round, in the working directory."""
    pool, held_out = make_volume(f"v{seed + 1}", POOL), make_volume(f"t{seed + 1}", HELD_OUT)
    imsave(pool["img"], "data/pool/img.h5")
    imsave(held_out["img"], "data/test/img.h5")
    net = ["--mit", 1, "--fov", "8,32,32", "--width", 8, 16, "--cpu"]
    common = [*net, "--batch_size", 4, "--lr", 0.003, "--num_workers", 0, "--seed", seed, "--size_average"]
    log = ["--avgs_intv", 1000, "--eval_intv", 10**6, "--imgs_intv", 10**6, "--warm_up", 0, "--eval_iter", 1]
    found, seen, predictions = [], 0, ["data/pool/img.h5"]
    for number in range(1, rounds + 1):
        how = by if number > 1 else "random"  # the first ones are the same for every choice
        out = ["--out", "rounds", "--size", SIZE, "--context", "0,0,0", "--count", count, "--seed", seed]
        quietly(suggest.main, ["data/pool/img.h5", "--predictions", *predictions, "--by", how, *out])
        seen += annotate(pool, number)
        data = ["--data", "annotated", "--data_dir", "rounds", "--train_ids", "all", "--val_ids", "all"]
        before = ["--pretrain", f"experiments/r{number - 1}/models/model{steps}.chkpt"] if number > 1 else []
        quietly(run.main, [*data, "--exp_name", f"r{number}", "--max_iter", steps, *common, *log, *before])
        ask = ["--exp_name", f"r{number}", "--data_dir", "data", "--cpu", "--overlap", "0.25,0.25,0.25"]
        quietly(forward.main, [*ask, "--test_ids", "test"])
        folder = Path(f"experiments/r{number}/forward")
        p = imread(folder / f"test_mitochondria_{steps}.h5")[0]
        found.append((seen, float(binary(p, held_out["mit"] > 0)["average_precision"])))
        if number < rounds:
            more = ["--test_aug", 0, 2, 4, 6, "--variance"] if by == "variance" else []
            quietly(forward.main, [*ask, "--test_ids", "pool", *more])
            predictions = [str(path) for path in sorted(folder.glob("pool_*.h5"), key=lambda path: "_var" in path.name)]
    return found


def main() -> None:
    """Measure, print a table, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("suggest.png"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--count", type=int, default=3, help="cut-outs per round")
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps per round")
    args = parser.parse_args()
    out, home = args.out.resolve(), Path.cwd()
    curves: dict[str, list[list[tuple[int, float]]]] = {by: [] for by in CHOICES}
    for seed in range(args.seeds):
        for by in CHOICES:
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                curves[by].append(curve(by, seed, args.rounds, args.count, args.steps))
                os.chdir(home)
            print(seed, by, " ".join(f"{score:.3f}" for _, score in curves[by][-1]), flush=True)
            out.with_suffix(".json").write_text(json.dumps(curves, indent=1) + "\n")
    table(curves)
    draw(curves, out)


def table(curves: dict[str, list[list[tuple[int, float]]]]) -> None:
    """Print mean and spread over the seeds."""
    voxels = [seen for seen, _ in curves[CHOICES[0]][0]]
    print("annotated voxels  " + "  ".join(f"{seen:>14,}" for seen in voxels))
    for by, runs in curves.items():
        scores = np.array([[score for _, score in run] for run in runs])
        cells = [f"{m:.3f} +- {s:.3f}" for m, s in zip(scores.mean(0), scores.std(0), strict=True)]
        print(f"{by:<16}  " + "  ".join(f"{cell:>14}" for cell in cells))


def draw(curves: dict[str, list[list[tuple[int, float]]]], out: Path) -> None:
    """Draw a line per choice with the spread over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for by, runs in curves.items():
        scores = np.array([[score for _, score in run] for run in runs])
        axes.errorbar([seen for seen, _ in runs[0]], scores.mean(0), scores.std(0), label=by, capsize=3)
    axes.set(xlabel="annotated voxels", ylabel="average precision, mitochondria", title="mean and deviation over seeds")
    axes.legend()
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
