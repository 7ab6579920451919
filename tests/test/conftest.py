"""A small experiment as training leaves it, in a working directory of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The run `exp` with a checkpoint of a tiny network."""
    monkeypatch.chdir(tmp_path)
    return Lab.with_checkpoint(tmp_path)
