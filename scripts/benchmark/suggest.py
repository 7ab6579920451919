#!/usr/bin/env python3
"""Which choice of cut-outs teaches most: score against annotated voxels, by entropy, variance, random choice and grid.

    python scripts/benchmark/suggest.py --out curves                          synthetic tissue, three seeds
    python scripts/benchmark/suggest.py --out curves --tissue fib25 --data_dir DATA --seeds 1

On synthetic tissue with the truth as annotator, mitochondria: each seed has a pool to choose from and a volume of its
own to be scored on. On fib25, neurons: the pool is z 0:100 and the score that of z 100:140. All choices begin with the
same cut-outs and have the same number of optimiser steps. The score is the average precision: of mitochondria, or of
cut edges. Every curve is a file under --out; what is there is not made again. The picture shows what there is.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deepem.data.synth.volume import make_volume
from deepem.evaluate import affinity, binary
from deepem.io.files import imread, imsave
from deepem.tasks import NEAREST_EDGES
from deepem.test import forward
from deepem.tools import suggest
from deepem.train import run

CHOICES = ("entropy", "variance", "random", "grid")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Tissue:
    """What is annotated and scored.

    Attributes:
        task: The flag of the task.
        label: The label that is annotated.
        output: The name of the task's output.
        cutout: Size of a cut-out, and of the patch, z,y,x.
        score: What the score is of.
    """

    task: str
    label: str
    output: str
    cutout: str
    score: str


TISSUES = {
    "synthetic": Tissue("mit", "mit", "mitochondria", "8,32,32", "mitochondria"),
    "fib25": Tissue("aff", "seg", "affinity", "12,48,48", "cut edges of neurons"),
}


def volumes(tissue: str, seed: int, data_dir: Path, small: bool) -> tuple[dict[str, Array], dict[str, Array]]:
    """The pool to choose from and the volume to be scored on."""
    if tissue == "synthetic":
        pool, test = ((16, 96, 96), (8, 96, 96)) if small else ((32, 192, 192), (24, 160, 160))
        return make_volume(f"v{seed + 1}", pool), make_volume(f"t{seed + 1}", test)
    both = {key: imread(data_dir / "fib25" / f"{key}.h5") for key in ("img", "seg")}
    side = slice(0, 100 if small else 250)
    return tuple({key: a[part, side, side] for key, a in both.items()} for part in (slice(0, 100), slice(100, 140)))  # type: ignore[return-value]


def quietly(main, words: list[object]) -> None:
    """Call a program without its output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        main([str(word) for word in words])


def annotate(truth: Array, label: str, number: int) -> int:
    """Write the truth of a round beside its images, and return how many voxels that is."""
    rows = json.loads(Path(f"rounds/round{number}.json").read_text())["cutouts"]
    for row in rows:
        shape = imread(f"rounds/{row['id']}/img.h5").shape
        part = tuple(slice(b, b + n) for b, n in zip(row["corner"], shape, strict=True))
        imsave(truth[part], f"rounds/{row['id']}/{label}.h5")
    return sum(int(np.prod(row["size"])) for row in rows)


def curve(by: str, seed: int, tissue: str, args: argparse.Namespace) -> list[tuple[int, float]]:
    """(annotated voxels, average precision) after each round, in the working directory."""
    of = TISSUES[tissue]
    pool, held_out = volumes(tissue, seed, args.data_dir, args.small)
    imsave(pool["img"], "data/pool/img.h5")
    imsave(held_out["img"], "data/test/img.h5")
    net = [f"--{of.task}", 1, "--fov", of.cutout, "--width", 8, 16, "--cpu"]
    common = [*net, "--batch_size", 4, "--lr", 0.003, "--num_workers", 0, "--seed", seed, "--size_average"]
    log = ["--avgs_intv", 1000, "--eval_intv", 10**6, "--imgs_intv", 10**6, "--warm_up", 0, "--eval_iter", 1]
    found, seen, predictions = [], 0, ["data/pool/img.h5"]
    for number in range(1, args.rounds + 1):
        how = by if number > 1 else "random"  # the first ones are the same for every choice
        out = ["--out", "rounds", "--size", of.cutout, "--context", "0,0,0", "--count", args.count, "--seed", seed]
        quietly(suggest.main, ["data/pool/img.h5", "--predictions", *predictions, "--by", how, *out])
        seen += annotate(pool[of.label], of.label, number)
        data = ["--data", "annotated", "--data_dir", "rounds", "--train_ids", "all", "--val_ids", "all"]
        before = ["--pretrain", f"experiments/r{number - 1}/models/model{args.steps}.chkpt"] if number > 1 else []
        quietly(run.main, [*data, "--exp_name", f"r{number}", "--max_iter", args.steps, *common, *log, *before])
        ask = ["--exp_name", f"r{number}", "--data_dir", "data", "--cpu", "--overlap", "0.25,0.25,0.25"]
        quietly(forward.main, [*ask, "--test_ids", "test"])
        folder = Path(f"experiments/r{number}/forward")
        found.append((seen, scored(imread(folder / f"test_{of.output}_{args.steps}.h5"), held_out[of.label], of)))
        if number < args.rounds:
            more = ["--test_aug", 0, 2, 4, 6, "--variance"] if by == "variance" else []
            quietly(forward.main, [*ask, "--test_ids", "pool", *more])
            predictions = [str(path) for path in sorted(folder.glob("pool_*.h5"), key=lambda path: "_var" in path.name)]
    return found


def scored(prediction: Array, truth: Array, of: Tissue) -> float:
    """Average precision."""
    if of.task == "aff":
        return float(affinity(prediction, truth, edges=NEAREST_EDGES)["average_precision"])
    return float(binary(prediction[0], truth > 0)["average_precision"])


def main() -> None:
    """Measure what is missing, print a table, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("suggest"), help="folder of the curves and pictures")
    parser.add_argument("--tissue", choices=TISSUES, default="synthetic")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder that holds fib25")
    parser.add_argument("--only", nargs="+", choices=CHOICES, default=CHOICES, help="some of the choices")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--count", type=int, default=3, help="cut-outs per round")
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps per round")
    parser.add_argument("--small", action="store_true", help="small volumes")
    args = parser.parse_args()
    args.data_dir, home = args.data_dir.resolve(), Path.cwd()
    out = args.out.resolve() / f"{args.tissue}{'_small' if args.small else ''}_{args.rounds}x{args.count}_{args.steps}"
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        for by in args.only:
            file = out / f"{by}_seed{seed}.json"
            if not file.is_file():
                with tempfile.TemporaryDirectory() as folder:
                    os.chdir(folder)
                    made = curve(by, seed, args.tissue, args)
                    os.chdir(home)
                file.write_text(json.dumps(made) + "\n")
            print(seed, by, " ".join(f"{score:.3f}" for _, score in json.loads(file.read_text())), flush=True)
    curves = {by: [json.loads(f.read_text()) for f in sorted(out.glob(f"{by}_seed*.json"))] for by in CHOICES}
    curves = {by: runs for by, runs in curves.items() if runs}
    table(curves)
    draw(curves, TISSUES[args.tissue].score, out.with_suffix(".png"))
    print(out.with_suffix(".png"))


def table(curves: dict[str, list[list[tuple[int, float]]]]) -> None:
    """Print mean and spread over the seeds."""
    voxels = [seen for seen, _ in next(iter(curves.values()))[0]]
    print("annotated voxels  " + "  ".join(f"{seen:>14,}" for seen in voxels))
    for by, runs in curves.items():
        scores = np.array([[score for _, score in run] for run in runs])
        cells = [f"{m:.3f} +- {s:.3f}" for m, s in zip(scores.mean(0), scores.std(0), strict=True)]
        print(f"{by:<16}  " + "  ".join(f"{cell:>14}" for cell in cells))


def draw(curves: dict[str, list[list[tuple[int, float]]]], score: str, out: Path) -> None:
    """Draw a line per choice with the spread over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    for by, runs in curves.items():
        scores = np.array([[score for _, score in run] for run in runs])
        axes.errorbar([seen for seen, _ in runs[0]], scores.mean(0), scores.std(0), label=by, capsize=3)
    seeds = max(map(len, curves.values()))
    title = f"mean and deviation over {seeds} seeds" if seeds > 1 else "one seed"
    axes.set(xlabel="annotated voxels", ylabel=f"average precision, {score}", title=title)
    axes.legend()
    figure.tight_layout()
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
