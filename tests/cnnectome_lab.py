"""What the tests of CNNectome runs share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from lab import Lab

from deepem.build.stored import stored_run
from deepem.test.forward import main as forward
from deepem.utils import checkpoint

NET = "--model cnnectome_unet --num_fmaps 3 --fmap_inc_factor 2 --amp off"
VALID = (
    f"{NET} --downsample_factors 1,2,2 1,3,2 --kernel_size_down 3,3,3 / 1,3,3 / 3,3,3 --kernel_size_up 1,3,3 / 1,3,3"
)
SHORT = "--max_iter 4 --eval_intv 2 --eval_iter 2 --imgs_intv 2 --num_workers 0"


def words(lab: Lab, name: str, *more: str) -> list[str]:
    """The lab's own, less the width of rsunet."""
    base = [word for word in lab.base if word not in ("--width", "4", "8")]
    return [*base, *SHORT.split(), "--exp_name", name, *(word for part in more for word in part.split())]


def read(name: str, file: str) -> tuple[np.ndarray, dict[str, Any]]:
    """A predicted volume and what the file says of it."""
    with h5py.File(Path("experiments", name, "forward", f"{file}.h5")) as top:
        return top["main"][()], dict(top["main"].attrs)


def stitch(lab: Lab, name: str, *more: str) -> None:
    """Predict volume c."""
    forward(["--exp_name", name, "--data_dir", str(lab.data), "--test_ids", "c", "--cpu", *more])


def network(name: str, number: int = 4) -> torch.nn.Module:
    """A trained network, in eval mode."""
    state = checkpoint.read(Path("experiments", name, "models", f"model{number}.chkpt"))
    made = stored_run(state, name).network()
    made.load_state_dict(state.get("ema") or state["state_dict"])
    return made.eval()


def applied(model: torch.nn.Module, image: np.ndarray) -> dict[str, np.ndarray]:
    """Probabilities for a whole image (Z, Y, X) or (C, Z, Y, X) uint8."""
    x = torch.from_numpy(image.astype(np.float32) / 255).reshape(1, -1, *image.shape[-3:])
    with torch.no_grad():
        return {name: y[0].sigmoid().numpy() for name, y in model(x).items()}


def rows(name: str, phase: str) -> list[dict[str, float]]:
    """Of the log."""
    lines = Path("experiments", name, "logs/metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["phase"] == phase]
