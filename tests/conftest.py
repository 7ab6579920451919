"""What every test may ask for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with recorded figures and real volumes that lies beside the checkout, else the test is skipped."""
    folder = ROOT.parent / "shared"
    if not (folder / "parity").is_dir():
        pytest.skip("no folder shared/ with recorded figures and volumes beside the checkout")
    return folder


@pytest.fixture(autouse=True)
def hang_up_as_usual() -> Iterator[None]:
    """A hang-up ends or interrupts a program, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def exact_float32() -> Iterator[None]:
    """A GPU does not round float32 products to TF32."""
    import torch

    parts = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [part.fp32_precision for part in parts]
    for part in parts:
        part.fp32_precision = "ieee"
    yield
    for part, value in zip(parts, before, strict=True):
        part.fp32_precision = value


@pytest.fixture(scope="session")
def verb_env(root: Path) -> dict[str, str]:
    """The environment of a process that calls ``python -m deepem VERB`` from another folder, on one thread."""
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def stored(tmp_path):
    """An image volume that begins at x 10, y 20, z 5, and its array (z, y, x)."""
    cloudvolume = pytest.importorskip("cloudvolume")
    array = np.random.default_rng(0).integers(1, 256, (7, 37, 29), np.uint8)
    path = f"file://{tmp_path}/em"
    cloudvolume.CloudVolume.from_numpy(
        array.transpose(2, 1, 0)[..., None].copy(), path, resolution=(4, 4, 40), voxel_offset=(10, 20, 5),
        chunk_size=(16, 8, 4), progress=False,
    )  # fmt: skip
    return path, array
