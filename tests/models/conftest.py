"""The recorded figures of the public networks, and the rule that their states were filled by."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn


class Recorded:
    """The recorded cases of one file."""

    def __init__(self, folder: Path, name: str) -> None:
        self.cases = json.loads((folder / f"{name}.json").read_text())
        self.arrays = np.load(folder / f"{name}.npz")

    def output(self, case: str, mode: str, head: str = "") -> np.ndarray:
        return self.arrays["/".join(filter(None, (case, "V", mode, head)))]

    def input(self, case: str) -> torch.Tensor:
        values = np.random.RandomState(1234).standard_normal(self.cases[case]["input_shape"])
        return torch.tensor(values, dtype=torch.float32)

    @staticmethod
    def describe(model: nn.Module) -> list[list]:
        """[name, shape, dtype, param or buffer] of every entry, in order."""
        buffers = dict(model.named_buffers())
        return [
            [key, list(t.shape), str(t.dtype).removeprefix("torch."), "buffer" if key in buffers else "param"]
            for key, t in model.state_dict().items()
        ]

    @staticmethod
    def fill(model: nn.Module) -> None:
        """The rule of shared/parity/README.md."""
        buffers = dict(model.named_buffers())
        for i, (key, tensor) in enumerate(model.state_dict().items()):
            z = np.random.RandomState(i).standard_normal(tuple(tensor.shape))
            if key.endswith("num_batches_tracked"):
                value = np.zeros(())
            elif key.endswith("running_mean"):
                value = 0.1 * z
            elif key.endswith("running_var"):
                value = 0.5 + 0.5 * abs(z)
            elif key in buffers:
                continue
            elif tensor.ndim >= 2:
                value = z * np.sqrt(2 / prod(tensor.shape[1:]))
            elif key.endswith("act.weight"):
                value = 0.2 + 0.02 * z
            else:
                value = 1 + 0.1 * z if key.endswith("weight") else 0.1 * z
            tensor.copy_(torch.as_tensor(np.asarray(value), dtype=tensor.dtype))

    @staticmethod
    def close(got: torch.Tensor, recorded: np.ndarray) -> bool:
        """Same shape, and within 1e-4 of the largest value."""
        if got.shape != recorded.shape:
            return False
        return bool(np.abs(got.detach().numpy() - recorded).max() <= 1e-4 * np.abs(recorded).max() + 1e-6)


@pytest.fixture(scope="session")
def networks(shared: Path) -> Recorded:
    return Recorded(shared / "parity", "emvision")


@pytest.fixture(scope="session")
def models(shared: Path) -> Recorded:
    return Recorded(shared / "parity", "deepem_models")


@pytest.fixture(scope="session")
def cnnectome(shared: Path) -> Recorded:
    return Recorded(shared / "parity", "cnnectome")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
