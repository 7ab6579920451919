"""Files of the web, kept beside their checksum: each is downloaded once and appears whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepem.utils.errors import InputError
from deepem.utils.files import write_text

CHUNK = 1 << 20
PATIENCE = 60.0
"""Seconds without a byte after which a server counts as gone."""


def fetch(
    url: str, target: Path, sha256: str | None = None, patience: float = PATIENCE, otherwise: str = "a file"
) -> Path:
    """The file of a URL, with progress on stderr; one that is there already is not downloaded again.

    The checksum of what came is written beside it, ``<name>.sha256``, and holds for every later use of the file.

    Args:
        url: http or https; redirects are followed.
        target: The file.
        sha256: What its checksum must be.
        patience: Seconds without a byte after which the server counts as gone.
        otherwise: What a user can give instead, such as a flag, in errors.

    Raises:
        InputError: the server cannot be reached or stops, the checksum is another, or the disk has no room. Nothing is
            left then.
    """
    record = target.with_name(f"{target.name}.sha256")
    if target.exists():
        check(target, sha256 or (record.read_text().split()[0] if record.exists() else None))
        return target
    try:
        import pooch
    except ImportError as error:
        raise InputError("pooch", "no such package", f"pip install deepem[download], or {otherwise} at hand") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress(target)
    downloader = pooch.HTTPDownloader(progressbar=progress, chunk_size=CHUNK, timeout=patience)
    known = f"sha256:{sha256.lower()}" if sha256 else None
    with _told(url, sha256, target, otherwise), _quiet(pooch.get_logger()):
        pooch.retrieve(url, known, target.name, target.parent, downloader=downloader)
    write_text(record, f"{digest(target)}  {target.name}\n")
    return target


def check(file: Path, sha256: str | None) -> None:
    """Refuse a file that is not there, or whose checksum is another.

    Raises:
        InputError: it is one of these.
    """
    if not file.exists():
        raise InputError(file, "no file", "a file that is there")
    if sha256 is not None and (found := digest(file)) != sha256.lower():
        raise InputError(file, f"checksum {found}", f"{sha256}; remove it to download it again")


def digest(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits; of a folder, of the names and checksums of all files in it."""
    found = hashlib.sha256()
    if file.is_dir():
        for inner in sorted(path for path in file.rglob("*") if path.is_file()):
            found.update(f"{inner.relative_to(file)} {digest(inner)}\n".encode())
        return found.hexdigest()
    with file.open("rb") as handle:
        while block := handle.read(CHUNK):
            found.update(block)
    return found.hexdigest()


class Progress:
    """A line on stderr that grows with a download, as pooch calls it; refuses a file that the disk has no room for."""

    def __init__(self, target: Path) -> None:
        self.target, self.got, self._total, self._shown = target, 0, 0, -1

    @property
    def total(self) -> int:
        """Bytes in all, 0 where the server does not say."""
        return self._total

    @total.setter
    def total(self, size: int) -> None:
        free = shutil.disk_usage(self.target.parent).free
        if size > free:
            got = f"a disk with {free / 1e9:.1f} GB free"
            raise InputError(self.target.parent, got, f"{size / 1e9:.1f} GB for {self.target.name}")
        self._total = size

    def update(self, size: int) -> None:
        """So many bytes more."""
        self.got = min(self.got + size, self._total) if self._total else self.got + size
        share = 100 * self.got // self._total if self._total else self.got // CHUNK
        if share != self._shown:
            self._shown = share
            of = f" of {self._total / 1e6:.0f} MB, {share} %" if self._total else " MB"
            sys.stderr.write(f"\r{self.target.name}: {self.got / 1e6:.0f}{of}")
            sys.stderr.flush()

    def reset(self) -> None:
        """Begin at 0: pooch fills the bar once more at the end."""
        self.got = 0

    def close(self) -> None:
        """End the line."""
        sys.stderr.write("\n")


@contextmanager
def _told(url: str, sha256: str | None, target: Path, otherwise: str) -> Iterator[None]:
    """What can go wrong with a download, in one line.

    Raises:
        InputError: it went wrong.
    """
    import requests

    again = f"a download (try again), or {otherwise} at hand"
    try:
        yield
    except InputError:
        raise
    except requests.RequestException as error:
        raise InputError(url, f"no file ({' '.join(str(error).split())[:200]})", again) from error
    except ValueError as error:
        if sha256 is None or "hash" not in str(error).lower():
            raise
        raise InputError(url, "a file with another checksum", f"sha256 {sha256}") from error
    except OSError as error:
        raise InputError(target, f"a disk that cannot take it ({error.strerror or error})", "room for it") from error


@contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    """Without pooch's own lines: the checksum that it recommends to write down is written down."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
