"""Provenance of files: the program, machine and command line that made them."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import socket
import subprocess
import sys
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@lru_cache
def commit() -> tuple[str, bool | None]:
    """Return the commit of the checkout and whether files differ from it; ('', None) for an installed package."""
    if not (ROOT / ".git").exists():
        return "", None
    try:
        found = _git("rev-parse", "HEAD")
        return found, bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return "", None


def _git(*words: str) -> str:
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True, timeout=10, env=env
    )
    return done.stdout.strip()


def provenance(seed: int | None = None, **more: Any) -> dict[str, Any]:
    """Return the provenance of a file as plain values.

    Args:
        seed: The seed of the run, if any.
        more: Additional entries, such as the checkpoint of an output and its checksum.
    """
    from deepem import __version__

    torch = sys.modules.get("torch")
    revision, changed = commit()
    made: dict[str, Any] = {
        "version": __version__,
        "commit": revision,
        "changed": changed,
        "torch": str(torch.__version__) if torch is not None else "",
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
    }
    return made | ({} if seed is None else {"seed": seed}) | more


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        found = hashlib.sha256()
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
