"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

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


@pytest.fixture(scope="session")
def verb_env(root: Path) -> dict[str, str]:
    """The environment of a process that calls ``python -m deepem VERB`` from another folder, on one thread."""
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
