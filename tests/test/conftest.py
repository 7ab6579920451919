"""A small experiment as training leaves it: a checkpoint of a tiny network, in a working directory of its own."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from deepem.models import rsunet
from deepem.test import forward
from deepem.utils import checkpoint

FOV = (4, 16, 16)
OPTIONS = {
    "model": "rsunet",
    "fov": list(FOV),
    "inputsz": list(FOV),
    "outputsz": list(FOV),
    "width": [4, 8],
    "aff": 1.0,
    "mit": 0.5,
    "lr": 0.001,
    "train_ids": ["a"],
}
HEADS = {"affinity": (3, *FOV), "mitochondria": (1, *FOV)}


def network(in_channels=1):
    """A network whose outputs spread over 0..1, with running statistics that are not the default ones."""
    torch.manual_seed(0)
    net = rsunet.create_model(in_spec={"input": (in_channels, *FOV)}, out_spec=HEADS, width=[4, 8])
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


class Lab:
    """A working directory with the experiment `exp`, and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.net = folder, network()
        self.save(7, {"options": OPTIONS})

    def save(self, number: int, more: dict) -> None:
        path = checkpoint.path_of(self.folder / "experiments/exp/models", number)
        checkpoint.write(path, {"iter": number, "state_dict": self.net.state_dict(), "optimizer": {}, **more})

    def image(self, name: str, size=(7, 37, 29), **attributes) -> np.ndarray:
        path = self.folder / "data" / name / "img.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.random.default_rng(len(name)).integers(0, 256, size, np.uint8)
        with h5py.File(path, "w") as file:
            file["main"] = array
            file["main"].attrs.update(attributes)
        return array

    def forward(self, *words: str) -> None:
        forward.main(["--exp_name", "exp", "--cpu", *words])

    def output(self, name: str) -> np.ndarray:
        with h5py.File(self.folder / "experiments/exp/forward" / f"{name}.h5") as file:
            return file["main"][()]

    def files(self) -> list[str]:
        folder = self.folder / "experiments/exp/forward"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Lab(tmp_path)
