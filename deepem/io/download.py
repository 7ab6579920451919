"""Download files atomically, once each, and keep them with their checksum."""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deepem.utils.errors import InputError
from deepem.utils.files import write_text

CHUNK = 1 << 20
PATIENCE = 60.0
"""A server that sends no byte for this many seconds counts as gone."""


def fetch(
    url: str,
    target: Path,
    sha256: str | None = None,
    patience: float = PATIENCE,
    otherwise: str = "a file",
    accept: Callable[[Path], bool] = lambda file: True,
) -> Path:
    """Download a URL to a file unless the file exists, with progress on stderr.

    The checksum of the download is written to ``<name>.sha256`` beside the file and checked at every later use.

    Args:
        url: http or https; redirects are followed.
        target: The file.
        sha256: The expected checksum.
        patience: A server that sends no byte for this many seconds counts as gone.
        otherwise: An alternative that errors suggest to the user, such as a flag.
        accept: Tells whether a downloaded file is of the right format; an error page is not.

    Raises:
        InputError: the server cannot be reached or stops, the checksum differs, the format is wrong, or the disk is
            full. No file is left behind.
    """
    record = target.with_name(f"{target.name}.sha256")
    if target.exists():
        check(target, sha256 or _recorded(record))
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
    if not accept(target):
        target.unlink()
        raise InputError(url, "a file of another format, such as an error page", f"the right URL, or {otherwise}")
    write_text(record, f"{digest(target)}  {target.name}\n")
    return target


def _recorded(record: Path) -> str | None:
    """Return the checksum of an earlier download, or None if there is no record.

    Raises:
        InputError: the record is damaged.
    """
    if not record.exists():
        return None
    found = record.read_text(errors="replace").split()
    if not found or len(found[0]) != 64:
        raise InputError(record, "no checksum", "the SHA-256 of the download; remove both files to download again")
    return found[0]


def check(file: Path, sha256: str | None) -> None:
    """Check that a file exists and has the right checksum.

    Raises:
        InputError: the file does not exist, or its checksum differs.
    """
    if not file.exists():
        raise InputError(file, "no file", "a file that is there")
    if sha256 is not None and (found := digest(file)) != sha256.lower():
        raise InputError(file, f"checksum {found}", f"{sha256}; remove it to download it again")


def digest(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; for a folder, that of the names and checksums of its files."""
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
    """A progress line on stderr with the interface that pooch expects; refuses a file too large for the disk."""

    def __init__(self, target: Path) -> None:
        self.target, self.got, self._total, self._shown = target, 0, 0, -1

    @property
    def total(self) -> int:
        """Total number of bytes; 0 if the server does not say."""
        return self._total

    @total.setter
    def total(self, size: int) -> None:
        free = shutil.disk_usage(self.target.parent).free
        if size > free:
            got = f"a disk with {free / 1e9:.1f} GB free"
            raise InputError(self.target.parent, got, f"{size / 1e9:.1f} GB for {self.target.name}")
        self._total = size

    def update(self, size: int) -> None:
        """Count more bytes."""
        self.got = min(self.got + size, self._total) if self._total else self.got + size
        share = 100 * self.got // self._total if self._total else self.got // CHUNK
        if share != self._shown:
            self._shown = share
            of = f" of {self._total / 1e6:.0f} MB, {share} %" if self._total else " MB"
            sys.stderr.write(f"\r{self.target.name}: {self.got / 1e6:.0f}{of}")
            sys.stderr.flush()

    def reset(self) -> None:
        """Restart at 0, because pooch fills the bar once more at the end."""
        self.got = 0

    def close(self) -> None:
        """End the line."""
        sys.stderr.write("\n")


@contextmanager
def _told(url: str, sha256: str | None, target: Path, otherwise: str) -> Iterator[None]:
    """Convert the errors of a download to one-line InputErrors.

    Raises:
        InputError: the download failed.
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
    """Silence pooch's log: it recommends recording the checksum, which this module already does."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
