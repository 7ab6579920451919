"""The folder of a plan, which all workers can reach: a path, ``file://``, ``gs://``, ..."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepem.io.addresses import allow_keys_without_token, refuse_unknown_protocol, to_be_made
from deepem.io.faults import store_fault, unwritable
from deepem.utils.errors import InputError


@dataclass(frozen=True)
class Folder:
    """Small files by name, each written atomically."""

    path: str

    @property
    def url(self) -> str:
        """The folder as an address for cloud-files."""
        return self.path if "://" in self.path else f"file://{Path(self.path).resolve()}"

    def _files(self) -> Any:
        from cloudfiles import CloudFiles

        allow_keys_without_token()
        return CloudFiles(self.url, progress=False)

    def put(self, name: str, value: bytes | Mapping[str, Any]) -> None:
        """Write a file: bytes unchanged, any other value as JSON.

        Raises:
            InputError: the folder cannot take it.
        """
        files = self._files()
        try:
            files.put(name, value) if isinstance(value, bytes) else files.put_json(name, value)
        except Exception as error:  # each protocol raises its own errors
            raise unwritable(f"{self.path}/{name}", error) from error

    def get(self, name: str) -> bytes | None:
        """Return the bytes of a file; None if it does not exist."""
        with self._reading():
            held: bytes | None = self._files().get(name)
            return held

    def json(self, name: str) -> Any:
        """Return the value of a JSON file; None if the file does not exist or is incomplete."""
        with self._reading():
            try:
                return self._files().get_json(name)
            except ValueError:
                return None

    def names(self, prefix: str) -> list[str]:
        """Return the names of the files that begin with a prefix."""
        with self._reading():
            return list(self._files().list(prefix))

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; missing files are ignored."""
        with self._reading():
            self._files().delete(list(names))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Convert errors of an unusable store to InputError; return other errors unchanged."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            if (told := store_fault(self.path, error)) is not None:
                raise told from error
            raise

    def refuse_unless_new(self, name: str) -> None:
        """Refuse a folder that already has a file of that name or cannot be written to. The folder is not changed.

        Raises:
            InputError: the folder is not new, or cannot be written to.
        """
        refuse_unknown_protocol(self.path, written=True)
        files, made = self._files(), to_be_made(self.url)
        try:
            there = files.exists(name)
            if not there:
                files.put("trial", b"")
                files.delete("trial")
        except Exception as error:  # each protocol raises its own errors
            raise unwritable(self.path, error) from error
        if there:
            raise InputError(self.path, "a plan that is there", "a new folder")
        with suppress(OSError):
            for one in made:
                one.rmdir()
