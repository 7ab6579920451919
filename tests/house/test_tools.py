"""The style and type checkers find nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest


def check(root: Path, *command: str) -> None:
    if importlib.util.find_spec(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed (the extra dev has it)")
    done = subprocess.run([sys.executable, "-m", *command], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_ruff_finds_nothing(root):
    check(root, "ruff", "check", "--quiet", "--output-format", "concise", ".")


def test_mypy_finds_nothing(root):
    check(root, "mypy")


def test_a_finding_fails(tmp_path):
    (tmp_path / "a.py").write_text("import os\n")
    with pytest.raises(AssertionError, match="F401"):
        check(tmp_path, "ruff", "check", "--output-format", "concise", "--isolated", ".")
