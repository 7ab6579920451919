"""The table of networks: what each costs, and what it gives on fib25; written into experiments/README.md.

    python scripts/benchmark/zoo.py --data_dir DATA                       every network, every column
    python scripts/benchmark/zoo.py --data_dir DATA --only rsunet mednext
    python scripts/benchmark/zoo.py --cheap                               the columns that need no training
    python scripts/benchmark/zoo.py --small                               tiny networks, to see that everything runs

Rows are kept under --out, one file for each part of a row: what is there is not run again, so that the table may be
made in pieces and on several machines. The page is written anew by every call, from what is there.

Costs: parameters, receptive field and FLOPs from shapes (as deepem summary has them), memory of a training step in
float32, and the time of a step and of a prediction with the settings that training chooses on this machine. On a CPU
it is processor time of one thread, which other programs on the machine do not change much.

Scores: DATA/fib25 is trained on z 0:100, the threshold of the segmentation is tuned on z 100:120, and the adapted Rand
error and the average precision of cut edges are those of z 120:140. A network trains 300 iterations; and as many as
fit into four minutes by its step time. rsunet and cnnectome train with three seeds, and so do the two best others
once every network has its first row; the rest train with one.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).resolve().parent)]

import _zoo_page as page  # noqa: E402
from _zoo_networks import COMMON, NETWORKS  # noqa: E402
from luck import call, of_log  # noqa: E402

from deepem import evaluate  # noqa: E402
from deepem.data import emio  # noqa: E402
from deepem.data.synth.volume import make_volume  # noqa: E402
from deepem.segment import sweep  # noqa: E402
from deepem.tasks import NEAREST_EDGES  # noqa: E402

BUDGETS = {"300 iterations": 300, "four minutes": 0}
MINUTES = 240.0
THRESHOLDS = np.linspace(0.1, 0.9, 9)


@dataclass(frozen=True)
class Place:
    """Where rows are kept and how they are made.

    Attributes:
        out: The folder.
        data: The folder that holds fib25, and its parts to tune on and to report on.
        small: Whether everything is tiny.
        device: "cpu" or "cuda".
    """

    out: Path
    data: Path
    small: bool
    device: str

    def words(self, name: str) -> list[str]:
        """The command line of a network's training, without seed and length."""
        network = NETWORKS[name]
        more = f"{network.small} --eval_iter 1 --eval_intv 1 --num_workers 0" if self.small else ""
        more += " --edges 0,0,3 0,3,0 2,0,0" if self.small else ""
        return [*COMMON.split(), *network.words.split(), *more.split(), "--data_dir", str(self.data)] + (
            ["--cpu"] if self.device == "cpu" else []
        )


def prepare_data(data_dir: Path, out: Path, small: bool) -> Path:
    """Write fib25 (or, if small, synthetic tissue in its place) and its two held-out parts, and return their folder."""
    data = out / "data"
    parts = {"fib25_tune": slice(100, 120), "fib25_test": slice(120, 140)}
    if not (data / "fib25").exists():
        data.mkdir(parents=True, exist_ok=True)
        if small:
            made = make_volume("v1", (140, 112, 112))
            for key in ("img", "seg"):
                emio.imsave(made[key], data / "fib25" / f"{key}.h5")
        else:
            (data / "fib25").symlink_to((data_dir / "fib25").resolve())
    for name, part in parts.items():
        for key in ("img", "seg"):
            if not (path := data / name / f"{key}.h5").is_file():
                emio.imsave(emio.imread(data / "fib25" / f"{key}.h5")[part], path)
    return data


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file holds, made and written if it is not there."""
    if not path.is_file():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(found, indent=1) + "\n")
        os.replace(beside, path)
    found = json.loads(path.read_text())
    print(f"  {path.parent.name}/{path.stem}", {k: v for k, v in found.items() if k != "machine"}, flush=True)
    return found


def measured(place: Place, name: str, what: str) -> dict[str, Any]:
    """Figures of a network, measured in a process of its own."""
    words = ["--measure", what, json.dumps(place.words(name)), "--rounds", "2" if place.small else "5"]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | ({"OMP_NUM_THREADS": "1"} if place.device == "cpu" else {})
    done = subprocess.run(
        [sys.executable, __file__, *words], cwd=place.out, env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def shapes(words: list[str], rounds: int) -> dict[str, Any]:
    """What shapes alone tell: parameters, patch, receptive field, FLOPs, memory. The same on every machine."""
    from deepem.cli.train_parser import parse
    from deepem.tools.cost import summary

    options = parse(words)
    channels = sum(task.channels for task in options.tasks.chosen)
    rows = dict(summary(options.model(), options.inputsz, (10.0, 10.0, 10.0), 1, channels, 1))
    if "context" in rows:  # of both sides together, without the voxel itself
        sides = rows["context"].partition(" voxels")[0].split(",")
        rows["receptive field"] = ",".join(str(int(side) + 1) for side in sides)
    return {
        "parameters": int(rows["parameters"].replace(",", "")),
        "patch": rows["patch"].partition(" (")[0],
        "field": rows["receptive field"].partition(" voxels")[0],
        "mflop": float(rows["FLOPs per output voxel"].split()[0].replace(",", "")) / 1e6,
        "memory": int(rows["memory, training"].split()[0].replace(",", "")),
    }


def times(words: list[str], rounds: int) -> dict[str, Any]:
    """Time of a training step, and voxels per second of a prediction."""
    import torch
    from training import bare_step, first_batch, made, settled

    of = made(words, [])
    trainer = of.trainer
    if trainer.device.type == "cpu":
        torch.set_num_threads(1)
    settled(of)
    batch = first_batch(of)
    step_s = _fastest(bare_step(of, batch), rounds)
    trainer.network.eval()

    @torch.no_grad()
    def predict() -> int:
        with trainer.precision.autocast():
            outputs = trainer.model(batch["input"])
        if trainer.device.type == "cuda":
            torch.cuda.synchronize()
        return int(np.prod(next(iter(outputs.values())).shape[2:]))

    return {
        "step": step_s,
        "voxels_per_s": predict() / _fastest(predict, rounds),
        "machine": page.machine(trainer.device.type),
    }


MEASURES = {"shapes": shapes, "times": times}


def _fastest(call: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of some calls, after one that is not counted."""
    import torch

    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    call()
    taken = []
    for _ in range(rounds):
        began = clock()
        call()
        taken.append(clock() - began)
    return min(taken)


def scores(place: Place, name: str, steps: int, seed: int) -> dict[str, Any]:
    """Train, predict both held-out parts, and score."""
    run = f"{name}_{steps}_seed{seed}"
    call(["train", *place.words(name), "--exp_name", run, "--seed", str(seed), "--max_iter", str(steps)], place.out)
    folder = place.out / "experiments" / run
    where = ["--data_dir", str(place.data), "--test_ids", "fib25_tune", "fib25_test", "--pad_small"]
    call(["forward", "--exp_name", run, *where, *(["--cpu"] if place.device == "cpu" else [])], place.out)
    tune, test = (scored(place, folder, part) for part in ("fib25_tune", "fib25_test"))
    best = min(THRESHOLDS, key=lambda threshold: tune["rand"][f"{threshold:.1f}"])
    return {
        "iterations": steps,
        "loss": of_log(folder / "logs" / "metrics.jsonl")["loss"],
        "ap": test["ap"],
        "threshold": float(best),
        "rand": test["rand"][f"{best:.1f}"],
        "machine": page.machine(place.device),
    }


def scored(place: Place, folder: Path, part: str) -> dict[str, Any]:
    """Average precision of cut edges, and the adapted Rand error at each threshold."""
    (file,) = folder.glob(f"forward/{part}_affinity_*.h5")
    affinities, seg = emio.imread(file), emio.imread(place.data / part / "seg.h5")
    swept = sweep(affinities, THRESHOLDS, edges=NEAREST_EDGES)
    return {
        "ap": float(evaluate.affinity(affinities, seg, edges=NEAREST_EDGES)["average_precision"]),
        "rand": {f"{threshold:.1f}": float(evaluate.adapted_rand(s, seg)["error"]) for threshold, s in swept},
    }


def steps_of(budget: str, cost: dict[str, Any], small: bool) -> int:
    """Iterations of a budget."""
    if small:
        return 2 if BUDGETS[budget] else 3
    return BUDGETS[budget] or max(1, round(MINUTES / cost["step"]))


def make(place: Place, names: list[str], cheap: bool) -> None:
    """Make the rows that are missing, then the further seeds of the best."""
    for name in names:
        cost = {}
        for what in MEASURES:
            make_it = functools.partial(measured, place, name, what)
            cost |= kept(place.out / name / f"{what}.json", make_it)
        for budget in BUDGETS if not cheap else ():
            for seed in range(1 if place.small else NETWORKS[name].seeds):
                one(place, name, budget, cost, seed)
    rows = page.rows_under(place.out, NETWORKS)
    if cheap or place.small or any("four minutes" not in row["scores"] for row in rows.values()):
        return
    for name in page.best_others(rows, [n for n in names if NETWORKS[n].seeds == 1], 2):
        for budget in BUDGETS:
            for seed in (1, 2):
                one(place, name, budget, rows[name]["times"], seed)


def one(place: Place, name: str, budget: str, cost: dict[str, Any], seed: int) -> None:
    """Make one training's figures, unless they are there."""
    steps = steps_of(budget, cost, place.small)
    file = place.out / name / f"{budget.replace(' ', '_')}_seed{seed}.json"
    kept(file, lambda: scores(place, name, steps, seed))


def main() -> None:
    """Read the command line, make the rows, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, metavar="NAME", help=f"some of {', '.join(NETWORKS)}")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder that holds fib25")
    parser.add_argument("--out", type=Path, default=Path("zoo"), help="folder of the rows")
    parser.add_argument("--page", type=Path, help="page to write (default: experiments/README.md, with --small none)")
    parser.add_argument("--cheap", action="store_true", help="no trainings")
    parser.add_argument("--small", action="store_true", help="tiny networks on synthetic tissue, a few iterations")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        what, words = args.measure
        print(json.dumps(MEASURES[what](json.loads(words), args.rounds)))
        return
    out = args.out.resolve()
    data = prepare_data(args.data_dir.resolve(), out, args.small)
    make(Place(out, data, args.small, args.device), args.only or list(NETWORKS), args.cheap)
    target = args.page or (None if args.small else ROOT / "experiments" / "README.md")
    if target is not None:
        flags = {name: network.words for name, network in NETWORKS.items()}
        about = {name: network.about for name, network in NETWORKS.items()}
        target.write_text(page.text(page.rows_under(out, NETWORKS), about, flags, COMMON))
        print(target)


if __name__ == "__main__":
    main()
