"""How far mixed precision leads from float32: loss curves of whole runs side by side.

    python scripts/benchmark/precision.py --steps 300 --seeds 0 1

Each seed trains a narrow default network twice, on the same samples from the same first weights, in float32 and in the
precision under test. How much their losses differ, averaged over windows of steps and on the same evaluation samples,
is set beside how much the float32 runs of two seeds differ, which is what chance alone does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deepem.train import run

Curve = dict[int, float]


def curves(words: list[str], name: str) -> tuple[Curve, Curve]:
    """The weighted loss of a run by iteration, in training (means since the last row) and in evaluation."""
    run.main([*words, "--exp_name", name])
    rows = [json.loads(line) for line in Path("experiments", name, "logs", "metrics.jsonl").read_text().splitlines()]
    train = {row["iter"]: row["affinity"] + 0.5 * row["mitochondria"] for row in rows if row["phase"] == "train"}
    return train, {row["iter"]: row["loss"] for row in rows if row["phase"] == "test"}


def apart(a: Curve, b: Curve) -> Curve:
    """The difference of two curves, relative to their mean, by iteration."""
    return {i: abs(a[i] - b[i]) / ((a[i] + b[i]) / 2) for i in a}


def report(phase: str, full: dict[int, Curve], half: dict[int, Curve], amp: str) -> None:
    """Print curves side by side, then how far they are apart at most and on average."""
    seeds = list(full)
    print(f"\n{phase} loss   " + "".join(f"{f'float32 seed {s}':>17}{f'{amp} seed {s}':>14}" for s in seeds))
    for i in full[seeds[0]]:
        print(f"{i:>10}   " + "".join(f"{full[s][i]:>17.4f}{half[s][i]:>14.4f}" for s in seeds))
    pairs = {
        f"{amp} against float32, same seed": [apart(full[s], half[s]) for s in seeds],
        "float32 against float32, two seeds": [apart(full[a], full[b]) for a, b in itertools.combinations(seeds, 2)],
    }
    for what, found in pairs.items():
        values = [value for curve in found for value in curve.values()]
        if values:
            print(f"{what:36} apart by {max(values):.2%} at most, {sum(values) / len(values):.2%} on average")


def main() -> None:
    """Read the command line and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--window", type=int, default=30, help="steps whose losses are averaged")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--fov", default="4,48,48", metavar="Z,Y,X")
    parser.add_argument("--amp", default="bf16", help="the precision to compare with float32")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further words for run.py")
    args = parser.parse_args()
    words = ["--data", "synthetic", "--synth_size", "32,128,128", "--aff", "1", "--mit", "0.5", "--size_average"]
    words += ["--width", "8", "16", "32"]
    words += ["--fov", args.fov, "--max_iter", args.steps, "--warm_up", 0, "--avgs_intv", args.window]
    words += ["--eval_intv", args.window, "--eval_iter", 10, "--imgs_intv", 10**6, "--chkpt_intv", 10**6, *args.more]
    both: dict[str, dict[int, tuple[Curve, Curve]]] = {"off": {}, args.amp: {}}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for seed, amp in itertools.product(args.seeds, both):
            line = [str(word) for word in [*words, "--seed", seed, "--amp", amp]]
            both[amp][seed] = curves(line, f"{amp}{seed}")
        os.chdir("/")
    for number, phase in enumerate(("training", "evaluation")):
        full, half = ({seed: pair[number] for seed, pair in both[amp].items()} for amp in both)
        report(phase, full, half, args.amp)


if __name__ == "__main__":
    main()
