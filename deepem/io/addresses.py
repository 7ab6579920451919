"""Addresses of volumes and folders as cloud-volume and cloud-files take them: ``file://``, ``gs://``, ``s3://``."""

from __future__ import annotations

import os
from pathlib import Path

from deepem.utils.errors import InputError


def refuse_unknown_protocol(path: str, written: bool = False) -> None:
    """Refuse unknown protocols such as ``foo://x``, which cloud-volume would take for the local folder ``foo:/x``.

    Args:
        path: The path of a volume or a folder.
        written: Whether it is an output.

    Raises:
        InputError: the protocol is unknown, or cannot be written to.
    """
    from cloudfiles import paths

    allow_keys_without_token()
    paths.update_aliases_from_file()
    known = [name for name in paths.ALLOWED_PROTOCOLS if not (written and "http" in name)]
    formats = ["precomputed"] if written else paths.ALLOWED_FORMATS
    first, *more = path.split("://")
    if more and first in formats:
        first, *more = more
    if more and first not in known:
        wants = ", ".join(f"{name}://" for name in known if "+" not in name)
        raise InputError(path, f"the protocol {first}://", f"one of {wants}, or a local path")


def allow_keys_without_token() -> None:
    """Let cloud-files use a key pair from the environment without a session token, which permanent keys lack."""
    if {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(os.environ):
        os.environ.setdefault(
            "AWS_SESSION_TOKEN", ""
        )  # without the variable it raises KeyError; an empty value counts as no token


def to_be_made(path: str) -> list[Path]:
    """Return the local folders that would be created for a new volume or folder, innermost first."""
    place = path.removeprefix("precomputed://").removeprefix("file://")
    folder = Path(place).absolute()
    return [] if "://" in place else [one for one in (folder, *folder.parents) if not one.exists()]
