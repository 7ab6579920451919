#!/usr/bin/env python3
"""Objects of a large synthetic volume, found in tiles by a small network: recall, precision, speed, and a kill.

    objects.py --side 512                 train for --max_iter steps, then predict a volume of 512^3 voxels
    objects.py --side 256 --run RUN       predict with a run that was trained before

The network sees volumes of `synthetic_nuclei` in training, and the volume is another one. Prediction runs twice: in one
go, and killed and started again until it ends. Both must write the same bytes. A second tile size tells how many of the
objects do not depend on it: those that overlap by half or more (IoU) with an object of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import h5py  # noqa: E402
import numpy as np  # noqa: E402

from deepem.data.synth.nuclei import DARK, make_nuclei  # noqa: E402
from deepem.evaluate import instances  # noqa: E402

BRIGHT = 1100.0
"""Camera counts that become white, as in `synthetic_nuclei`."""

NETWORK = """
--data synthetic_nuclei --train_ids n1 n2 n4 n5 n6 n7 --val_ids n3 --synth_size 100,128,128 --inst 1
--model mask_rcnn --backbone resnet18 --resnet_width 12 --return_layers p2 p3 --stem_stride 1,2,2 --fpn_width 24
--no-fpn_pool --anchor_sizes 16 / 28 --aspect_ratios 1 --aspect_ratios_z 0.6 --box_width 128 --box_rois 48
--mask_width 24 24 --mask_pool 8 --box_pool 5 --rpn_pre_nms 300 --rpn_post_nms 200 --fov 32,80,80 --batch_size 2
--lr 2e-3 --lr_schedule cosine --ema 0.995 --augment flip_rotate
"""


def deepem(*words: str) -> subprocess.Popen[bytes]:
    """Start a command of deepem."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen([sys.executable, "-m", "deepem", *words], env={**os.environ, "PYTHONPATH": path})


def finished(process: subprocess.Popen[bytes]) -> None:
    """Wait for a command that must not fail."""
    if process.wait():
        raise SystemExit(f"{' '.join(map(str, process.args[2:4]))} ended with exit code {process.returncode}")  # type: ignore[index]


def predicted(run: Path, data: Path, name: str, tile: str, kill_after: float | None = None) -> tuple[Path, int, float]:
    """Predict the volume; return the label volume, the number of kills and the seconds of the last call.

    Args:
        run: The run's folder.
        data: Folder of the volume.
        name: Name of the output.
        tile: Tile size, z,y,x.
        kill_after: Kill the first calls after this many seconds, and after more each time.
    """
    words = [
        "--exp_name",
        run.name,
        "--data_dir",
        str(data),
        "--test_ids",
        "t",
        "--inputsz",
        tile,
        "--out_prefix",
        name,
    ]
    kills = 0
    while True:
        began = time.perf_counter()
        process = deepem("forward", *words)
        try:
            code = process.wait(None if kill_after is None or kills == 3 else kill_after * (kills + 1))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        if code:
            raise SystemExit(f"forward ended with exit code {code}")
        (found,) = (run / "forward").glob(f"{name}_t_instance_*.h5")
        return found, kills, time.perf_counter() - began


def main() -> None:
    """Read the command line and print the figures as JSON."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--side", type=int, default=512)
    p.add_argument("--run", type=Path, help="a run trained before, experiments/NAME")
    p.add_argument("--max_iter", type=int, default=2500)
    p.add_argument("--tile", default="32,80,80")
    p.add_argument("--other_tile", default="40,96,96")
    p.add_argument("--kill_after", type=float, default=40, help="seconds")
    arguments = p.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = arguments.run and arguments.run.resolve()
        os.chdir(run.parents[1] if run else scratch)
        if run is None:
            finished(deepem("train", *NETWORK.split(), "--max_iter", str(arguments.max_iter), "--exp_name", "small"))
            run = Path("experiments/small").resolve()
        made = make_nuclei("t1", (arguments.side,) * 3)
        image = np.clip((made["img"] - np.float32(DARK)) / (BRIGHT - DARK), 0, 1)
        (Path(scratch) / "t").mkdir()
        with h5py.File(Path(scratch) / "t/img.h5", "w") as file:
            file["main"] = image
        whole, _, seconds = predicted(run, Path(scratch), "whole", arguments.tile)
        killed, kills, _ = predicted(run, Path(scratch), "killed", arguments.tile, arguments.kill_after)
        other, _, _ = predicted(run, Path(scratch), "other", arguments.other_tile)
        labels, again = (labels_of(path) for path in (whole, other))
        found, matched = instances(labels, made["seg"]), instances(again, labels)
    figures: dict[str, Any] = {
        "side": arguments.side,
        "objects": found["objects"],
        **{name: round(found[name], 4) for name in ("recall", "precision", "pq")},
        "ap": {str(t): round(value, 4) for t, value in found["ap"].items()},
        "seconds": round(seconds, 1),
        "kills": kills,
        "same_bytes": [a.read_bytes() == b.read_bytes() for a, b in beside(whole, killed)],
        "same_with_another_tile_size": [round(matched[name], 4) for name in ("recall", "precision")],
    }
    print(json.dumps(figures, indent=1))


def labels_of(path: Path) -> np.ndarray:
    """Read a label volume."""
    with h5py.File(path) as file:
        return file["main"][()]


def beside(*paths: Path) -> list[tuple[Path, ...]]:
    """Return the label volumes, and their tables."""
    return [paths, tuple(path.with_suffix(".csv") for path in paths)]


if __name__ == "__main__":
    main()
