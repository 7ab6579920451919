"""How much of a result is luck: the spread of what a run gives over seeds, precisions, threads and evaluations.

    python scripts/benchmark/luck.py demo --seeds 0 1 2 3 4 --amp bf16 off
    python scripts/benchmark/luck.py demo --vary all --seeds 0 1 2
    python scripts/benchmark/luck.py fib25 --data_dir DATA --seeds 0 1 2

`demo` trains experiments/demo/train.args and predicts a volume that was not trained on; `fib25` trains 300 iterations
on z 0:100 of DATA/fib25 and predicts z 100:140. Every setting of --vary differs from the chosen ones in one factor.
Runs are kept under --out: what is there is not run again, so that a table may be made in pieces.

Each row is a setting, with the median and the range over its runs of

- loss: the test loss of affinities and mitochondria after the last iteration, which settings with other heads share;
- AP: average precision of cut edges, the mean over x, y, z;
- Rand: adapted Rand error of agglomerated segments at the best of nine thresholds;
- AUC, F1: of mitochondria, F1 at 0.5;
- last 10: the largest test loss of the last ten evaluations over the smallest;
- rise: the largest rise of the test loss from one evaluation to the next in the last quarter of the run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deepem import evaluate
from deepem.data import emio
from deepem.segment import sweep
from deepem.tasks import NEAREST_EDGES

ROOT = Path(__file__).resolve().parents[2]
THRESHOLDS = np.linspace(0.1, 0.9, 9)
NO_LONG = "--long 0"
CHOSEN = "chosen"
SETTINGS = {
    CHOSEN: "",
    "no averaging, statistics as they come": "--ema 0 --calibrate 0",
    "no averaging, new statistics": "--ema 0",
    "averaging, new statistics": "--calibrate 40",
    "constant rate": "--lr_schedule constant",
    "constant rate, no averaging, statistics as they come": "--lr_schedule constant --ema 0 --calibrate 0",
    "rate halved": "--lr 0.001",
    "rate times 1.5": "--lr 0.003",
    "group norm": "--group 8",
    "without long-range": NO_LONG,
    "without warm-up": "--lr_warmup 0",
    "400 iterations": "--max_iter 400",
    "400 iterations, without warm-up": "--max_iter 400 --lr_warmup 0",
    "mitochondria weigh twice": "--mit 2",
}
"""What differs from the chosen settings. Of flags given twice the later one holds."""

FIB25 = (
    "--data fib25 --augment grayscale_warping --grayscale --warping --fov 16,96,96 --width 16 32 64 --aff 1 --long 1 "
    "--edges 0,0,4 0,4,0 4,0,0 0,0,9 0,9,0 9,0,0 --size_average --lr 0.002 --lr_schedule cosine --max_iter 300 "
    "--eval_iter 8 --avgs_intv 20 --warm_up 0 --imgs_intv 1000000"
)
FIGURES = ("loss", "AP", "Rand", "AUC", "F1", "last 10", "rise")
HEADS = ("affinity", "mitochondria")


@dataclass(frozen=True)
class Tissue:
    """What is trained and predicted.

    Attributes:
        words: The command line of the chosen settings.
        folder: Of the volume to predict, with img.h5 and its labels.
    """

    words: list[str]
    folder: Path


def demo(out: Path, data_dir: Path) -> Tissue:
    """Synthetic tissue, as scripts/demo.sh has it."""
    if not (out / "data" / "t2" / "img.h5").is_file():
        size = ["--size", "24,256,256", "--data_dir", str(out / "data")]
        call(["synthesize", "--layout", "synthetic", "--ids", "t2", *size], out)
    return Tissue([f"@{ROOT / 'experiments' / 'demo' / 'train.args'}"], out / "data" / "t2")


def fib25(out: Path, data_dir: Path) -> Tissue:
    """Fly medulla, of which the last sections are predicted."""
    folder = out / "data" / "fib25_val"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("img.h5", "seg.h5"):
        emio.imsave(emio.imread(data_dir / "fib25" / name)[100:140], folder / name)
    return Tissue([*FIB25.split(), "--data_dir", str(data_dir)], folder)


TISSUES = {"demo": demo, "fib25": fib25}


def call(words: list[str], out: Path, threads: int = 0) -> None:
    """Run a verb of the program in a folder, its output in log.txt there."""
    env = os.environ | {"PYTHONPATH": str(ROOT)} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "log.txt", "a") as log:
        subprocess.run(
            [sys.executable, "-m", "deepem", *words], cwd=out, env=env, stdout=log, stderr=subprocess.STDOUT, check=True
        )


def run(out: Path, name: str, tissue: Tissue, more: list[str], threads: int) -> dict[str, float]:
    """Train, predict and measure, unless that has been done."""
    found = out / "experiments" / name / "luck.json"
    if not found.is_file():
        call(["train", *tissue.words, *more, "--exp_name", name, "--eval_intv", "20"], out, threads)
        if not [*found.parent.glob("forward/*.h5")]:
            where = ["--data_dir", str(tissue.folder.parent), "--test_ids", tissue.folder.name]
            call(["forward", "--exp_name", name, *where], out, threads)
        figures = of_log(found.parent / "logs" / "metrics.jsonl") | of_outputs(found.parent / "forward", tissue.folder)
        found.write_text(json.dumps(figures) + "\n")
    figures = json.loads(found.read_text())
    print(f"  {name:60}", "  ".join(f"{key} {figures[key]:.3f}" for key in FIGURES if key in figures), flush=True)
    return figures


def of_log(metrics: Path) -> dict[str, float]:
    """What the evaluations say."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    rows = [row for row in rows if row["phase"] == "test"]
    losses = [sum(row[head] for head in HEADS if head in row) for row in rows]
    late = [loss for row, loss in zip(rows, losses, strict=True) if row["iter"] >= 0.75 * rows[-1]["iter"]]
    last = losses[-10:]
    rise = max((after / before for before, after in itertools.pairwise(late)), default=1.0) - 1
    return {"loss": losses[-1], "last 10": max(last) / min(last), "rise": rise}


def of_outputs(forward: Path, truth: Path) -> dict[str, float]:
    """What the predictions are worth."""
    affinities, seg = emio.imread(next(forward.glob("*_affinity_*.h5"))), emio.imread(truth / "seg.h5")
    swept = sweep(affinities, THRESHOLDS, edges=NEAREST_EDGES)
    figures = {
        "AP": evaluate.affinity(affinities, seg, edges=NEAREST_EDGES)["average_precision"],
        "Rand": min(evaluate.adapted_rand(segments, seg)["error"] for _, segments in swept),
    }
    for file in forward.glob("*_mitochondria_*.h5"):
        scores = evaluate.binary(emio.imread(file)[0], emio.imread(truth / "mit.h5") > 0)
        figures |= {"AUC": scores["auc"], "F1": scores["f1"]}
    return figures


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Median and range of every figure, in Markdown."""
    lines = ["| setting | runs | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 2) + "|"]
    for name, runs in rows.items():
        cells = [spread([figures[key] for figures in runs if key in figures]) for key in FIGURES]
        lines.append(f"| {name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """Median (least to most)."""
    if not values:
        return ""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    """Read the command line, run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tissue", choices=TISSUES)
    parser.add_argument("--vary", nargs="+", default=[CHOSEN], metavar="SETTING", help=f"all, or some of {[*SETTINGS]}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--amp", nargs="+", default=["auto"], choices=("auto", "bf16", "off"))
    parser.add_argument("--threads", type=int, nargs="+", default=[0], help="of the CPU; 0: as torch decides")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder that holds fib25")
    parser.add_argument("--out", type=Path, default=Path("luck"))
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further words for every training")
    args = parser.parse_args()
    names = list(SETTINGS) if args.vary == ["all"] else args.vary
    if unknown := [name for name in names if name not in SETTINGS]:
        parser.error(f"--vary: got {unknown[0]}, wants some of {', '.join(SETTINGS)}")
    out = args.out.resolve() / args.tissue
    tissue = TISSUES[args.tissue](out, args.data_dir.resolve())
    rows: dict[str, list[dict[str, float]]] = {}
    for name, amp, threads, seed in itertools.product(names, args.amp, args.threads, args.seeds):
        row = f"{name}, {amp}" + (f", {threads} threads" if threads else "")
        more = [*SETTINGS[name].split(), *args.more, "--amp", amp, "--seed", str(seed)]
        folder = f"{row}, seed {seed}".replace(", ", "_").replace(" ", "-")
        rows.setdefault(row, []).append(run(out, folder, tissue, more, threads))
    print(table(rows))


if __name__ == "__main__":
    main()
