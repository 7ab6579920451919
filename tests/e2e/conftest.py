"""Fixtures of the tests from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab.with_dataset(tmp_path / "lab")
