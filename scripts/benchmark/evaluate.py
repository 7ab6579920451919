#!/usr/bin/env python3
"""What scores of a segmentation cost, against scikit-image: adapted Rand error and variation of information.

    evaluate.py speed    seconds for both scores of --mvox million voxels, ours and scikit-image's, with their ratio
    evaluate.py memory   peak memory of ours above that of the arrays, for volumes 1, 4 and 16 times as large

The truth is shared/data/fib25 tiled with new ids in every tile, or synthetic cells where it is not there; the
segmentation is the truth cut into slabs, with some neighbours merged and some voxels left out. Ours gets ids of
--dtype; scikit-image gets them as it likes them best, dense and int64. Medians of interleaved rounds in one thread.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from deepem.evaluate import AdaptedRand, Voi  # noqa: E402
from deepem.evaluate.overlaps import Array, Overlaps  # noqa: E402

FIB25 = ROOT.parent / "shared" / "data" / "fib25" / "seg.h5"


def tile() -> Array:
    """One tile of true ids, dense."""
    if FIB25.is_file():
        import h5py

        with h5py.File(FIB25) as file:
            return np.asarray(file["main"])
    z, y, x = np.indices((140, 250, 250), sparse=True)
    return (1 + (z // 35) * 64 + ((y + z // 3) // 32) * 8 + (x + y // 4) // 40).astype(np.uint32)


def volume(mvox: float) -> tuple[Array, Array]:
    """(truth, segmentation) of about so many million voxels, int64 and dense."""
    one = tile()
    count = max(1, round(mvox * 1e6 / one.size))
    step = int(one.max()) + 1
    truth = np.empty((count * one.shape[0], *one.shape[1:]), np.int64)
    for i in range(count):
        truth[i * one.shape[0] : (i + 1) * one.shape[0]] = np.where(one, one.astype(np.int64) + i * step, 0)
    segmentation = (truth - truth % 3 * (truth > 2)) * 4 + np.arange(truth.shape[1])[:, None] * 4 // truth.shape[1]
    segmentation[:, ::50, ::7] = 0
    return truth, segmentation


def ours(truth: Array, segmentation: Array) -> tuple[dict[str, float], dict[str, float]]:
    """Both scores from one table."""
    overlaps = Overlaps()
    overlaps.add(segmentation, truth)
    return AdaptedRand(overlaps).result(), Voi(overlaps).result()


def theirs(truth: Array, segmentation: Array) -> tuple[Any, Any]:
    """Both scores of scikit-image."""
    from skimage.metrics import adapted_rand_error, variation_of_information

    return (
        adapted_rand_error(truth, segmentation, ignore_labels=(0,)),
        variation_of_information(truth, segmentation, ignore_labels=(0,)),
    )


def speed(arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each, and that variation of information agrees."""
    truth, segmentation = volume(arguments.mvox)
    typed = truth.astype(arguments.dtype), segmentation.astype(arguments.dtype)
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours(*typed),
        "ours_each_alone": lambda: (ours(*typed)[0], ours(*typed)[1]),
        "scikit_image": lambda: theirs(truth, segmentation),
    }
    taken: dict[str, list[float]] = {name: [] for name in calls}
    found: dict[str, Any] = {}
    for _ in range(arguments.rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            found[name] = call()
            taken[name].append(time.perf_counter() - start)
    seconds = {name: statistics.median(times) for name, times in taken.items()}
    split, merge = found["scikit_image"][1]
    agree = np.allclose([split, merge], [found["ours"][1]["split"], found["ours"][1]["merge"]])
    return {
        "mvox": truth.size / 1e6,
        **{f"{name}_s": round(value, 3) for name, value in seconds.items()},
        "ratio": round(seconds["scikit_image"] / seconds["ours"], 2),
        "ratio_each_alone": round(seconds["scikit_image"] / seconds["ours_each_alone"], 2),
        "variation_of_information_agrees": bool(agree),
    }


def peak(arguments: argparse.Namespace) -> dict[str, Any]:
    """MB that scoring takes beside the arrays, in this process."""
    truth, segmentation = volume(arguments.mvox)
    truth, segmentation = truth.astype(arguments.dtype), segmentation.astype(arguments.dtype)
    overlaps = Overlaps()
    overlaps.add(segmentation[:2], truth[:2])
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark begins anew
    ours(truth, segmentation)
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"mvox": truth.size / 1e6, "peak_mb": round((int(lines["VmHWM"].split()[0]) * 1024 - resident) / 1e6, 1)}


def memory(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """`peak` for growing volumes, each in a process of its own."""
    words = [sys.executable, __file__, "peak", "--dtype", arguments.dtype, "--mvox"]
    runs = (subprocess.run([*words, str(arguments.mvox * n)], check=True, capture_output=True) for n in (1, 4, 16))
    return [json.loads(run.stdout) for run in runs]


def main() -> None:
    """Read the command line and print figures as JSON."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("evaluate.py", description=__doc__, formatter_class=as_written)
    parser.add_argument("what", choices=("speed", "memory", "peak"))
    parser.add_argument("--mvox", type=float, help="million voxels (default: 100; memory: 17.5, the smallest)")
    parser.add_argument("--dtype", default="uint64")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.mvox is None:
        arguments.mvox = 17.5 if arguments.what == "memory" else 100
    print(json.dumps({"speed": speed, "memory": memory, "peak": peak}[arguments.what](arguments), indent=2))


if __name__ == "__main__":
    main()
