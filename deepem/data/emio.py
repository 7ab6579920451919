"""Volumes on disk: HDF5, TIFF, zarr and numpy files, told apart by suffix.

A path may name a dataset inside an HDF5 or zarr file after a colon: ``sample_B.hdf:volumes/raw``. Without one
it is ``main`` in HDF5 and, in zarr, the array itself or ``main`` of a group. Arrays are returned as stored,
(Z, Y, X) or (C, Z, Y, X); nothing is transposed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from deepem.utils.errors import InputError
from deepem.utils.files import replacing

Array = NDArray[Any]

SUFFIXES = {
    "hdf5": (".h5", ".hdf5", ".hdf"),
    "tiff": (".tif", ".tiff"),
    "zarr": (".zarr",),
    "npy": (".npy",),
}
MAIN = "main"

ALWAYS = ("img", "msk", "msk_train", "msk_val")
"""Keys of a volume that are read whatever the labels wanted."""

_INSIDE = re.compile(r"^(?P<file>.*\.(?:h5|hdf5|hdf|zarr)):(?P<key>[^:]+)$", re.IGNORECASE)


def imread(path: str | os.PathLike[str]) -> Array:
    """The volume stored at a path, whole and in memory.

    Raises:
        FileNotFoundError: nothing is there.
        InputError: the suffix is none of SUFFIXES, the file cannot be read (truncated, of another format), or
            it lacks the dataset asked for; the message lists those it has.
    """
    file, key = split_path(path)
    read = _READERS[format_of(file)]
    if not file.exists():
        raise FileNotFoundError(errno.ENOENT, "no such volume", str(file))
    array = np.ascontiguousarray(read(file, key))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def imsave(array: Array, path: str | os.PathLike[str], *, compress: bool = False) -> None:
    """Write a volume, whole or not at all: a file of the same name is replaced once the new one is complete.

    Args:
        array: Any shape; booleans are stored as uint8.
        path: As for `imread`. A dataset inside a file is written into a new file only, never into one that is
            there.
        compress: gzip for HDF5 and TIFF (zarr compresses by itself): wanted for labels and masks, not images.

    Raises:
        InputError: the suffix is none of SUFFIXES, or the dataset would be written into a file that exists.
    """
    file, key = split_path(path)
    write = _WRITERS[format_of(file)]
    if key is not None and file.exists():
        raise InputError(path, "a file that exists", "a new file: a dataset is not added to one")
    array = np.asarray(array)
    array = array.astype(np.uint8) if array.dtype == bool else array
    file.parent.mkdir(parents=True, exist_ok=True)
    with _replacing_folder(file) if format_of(file) == "zarr" else replacing(file) as beside:
        write(beside, key, array, compress)


def load_files(
    table: Mapping[str, Mapping[str, Any]],
    data_dir: str | os.PathLike[str],
    data_ids: Iterable[str] | None = None,
    labels: Iterable[str] = (),
    *,
    optional: Iterable[str] = (),
    remedy: str = "",
) -> dict[str, dict[str, Any]]:
    """Volumes by id, read as a table of files says: what the `load_data` of most dataset modules comes to.

    Args:
        table: Id -> row. A row gives the file of each array, under the key that `load_data` gives it (``img``,
            labels, ``msk`` or ``msk_train`` and ``msk_val``, ``<label>_msk``), and ``loc``. Files are relative to the
            row's ``dir``, and that to `data_dir`; a row without it lies in `data_dir` itself.
        data_dir: The folder that ``--data_dir`` names.
        data_ids: The ids to read, by default all.
        labels: The labels that are wanted: of the others and their masks nothing is read.
        optional: Keys whose file may be absent: the volume then comes without. Every other one must be there.
        remedy: What a user who lacks files is told to do.

    Raises:
        InputError: files that must be there are not; all of them are named.
    """
    labels, optional = set(labels), set(optional)
    volumes: dict[str, dict[str, Any]] = {}
    for id in table if data_ids is None else data_ids:
        row = {key: value for key, value in table[id].items() if key not in ("dir", "loc")}
        folder = Path(data_dir, table[id].get("dir", ""))
        files = {
            key: os.path.join(folder, name)
            for key, name in row.items()
            if key in ALWAYS or key.removesuffix("_msk") in labels
        }
        absent = {key for key, file in files.items() if not split_path(file)[0].exists()}
        if lacking := [row[key] for key in files if key in absent - optional]:
            raise InputError(folder, f"no {', '.join(lacking)}", remedy or "these files")
        volumes[id] = {key: imread(file) for key, file in files.items() if key not in absent}
        volumes[id]["loc"] = bool(table[id].get("loc", False))
    return volumes


def split_path(path: str | os.PathLike[str]) -> tuple[Path, str | None]:
    """The file and the path inside it of ``file.h5:volumes/raw``; None where the name has no second part."""
    inside = _INSIDE.match(os.fspath(path))
    return (Path(inside["file"]), inside["key"].strip("/")) if inside else (Path(path), None)


def format_of(file: Path) -> str:
    """The format that a file's suffix names; InputError if it names none."""
    for name, suffixes in SUFFIXES.items():
        if file.suffix.lower() in suffixes:
            return name
    known = ", ".join(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
    raise InputError(file, f"the suffix '{file.suffix}'", f"one of {known}")


@contextmanager
def _unreadable(file: Path, form: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn what a library raises over a damaged file into one line that names the file."""
    try:
        yield
    except InputError:
        raise
    except (PermissionError, IsADirectoryError) as error:
        raise InputError(file, error.strerror, f"a readable {form} file") from error
    except kinds as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(file, f"a file that cannot be read ({reason})", f"a whole {form} file") from error


def _read_hdf5(file: Path, key: str | None) -> Array:
    with _unreadable(file, "HDF5", OSError, RuntimeError, KeyError), h5py.File(file, "r") as top:
        item = top.get(key or MAIN)
        if not isinstance(item, h5py.Dataset):
            held: list[str] = []
            top.visititems(lambda name, what: held.append(name) if isinstance(what, h5py.Dataset) else None)
            raise _missing(file, key or MAIN, held)
        return np.asarray(item[()])


def _read_zarr(file: Path, key: str | None) -> Array:
    import zarr

    with _unreadable(file, "zarr", OSError, ValueError, KeyError, RuntimeError):
        top = zarr.open(str(file), mode="r")
        item = top
        if isinstance(top, zarr.Group):
            item = top.get(key or MAIN)
        elif key is not None:
            raise _missing(file, key, [])
        if not isinstance(item, zarr.Array):
            raise _missing(file, key or MAIN, sorted(_zarr_arrays(top)))
        return np.asarray(item[...])


def _zarr_arrays(group: Any, prefix: str = "") -> list[str]:
    found = [prefix + name for name in group.array_keys()]
    for name, inner in group.groups():
        found += _zarr_arrays(inner, f"{prefix}{name}/")
    return found


def _missing(file: Path, key: str, held: list[str]) -> InputError:
    there = ", ".join(held) or "none"
    return InputError(file, f"no dataset '{key}'", f"FILE:DATASET with a dataset that is there: {there}")


def _read_tiff(file: Path, key: str | None) -> Array:
    import tifffile

    with _unreadable(file, "TIFF", tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError):
        return np.asarray(tifffile.imread(file))


def _read_npy(file: Path, key: str | None) -> Array:
    with _unreadable(file, "numpy", OSError, ValueError, EOFError):
        return np.asarray(np.load(file, allow_pickle=False))


def _write_hdf5(file: Path, key: str | None, array: Array, compress: bool) -> None:
    wanted = compress and array.size
    packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if wanted else {}
    with h5py.File(file, "w") as top:
        top.create_dataset(key or MAIN, data=array, **packed)


def _write_zarr(file: Path, key: str | None, array: Array, compress: bool) -> None:
    import zarr

    if key is None:
        zarr.save_array(str(file), array)
    else:
        zarr.open_group(str(file), mode="w").create_array(key, data=array)


def _write_tiff(file: Path, key: str | None, array: Array, compress: bool) -> None:
    import tifffile

    # 'minisblack' keeps a last axis of 3 or 4 voxels from being taken for colour; BigTIFF from 2 GiB on.
    packed = "zlib" if compress else None
    big = array.nbytes >= 2**31
    tifffile.imwrite(file, array, photometric="minisblack", bigtiff=big, compression=packed)


def _write_npy(file: Path, key: str | None, array: Array, compress: bool) -> None:
    with file.open("wb") as handle:  # given a name, numpy would add its suffix
        np.save(handle, array)


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """As `replacing`, for a folder. It cannot be renamed over another, so that one steps aside at the last moment."""
    beside, aside = (folder.with_name(f".{folder.name}.{os.getpid()}.{word}") for word in ("part", "old"))
    try:
        yield beside
        if folder.exists():
            folder.rename(aside)
        beside.rename(folder)
    finally:
        for left in (beside, aside):
            shutil.rmtree(left, ignore_errors=True)


_READERS: dict[str, Callable[[Path, str | None], Array]] = {
    "hdf5": _read_hdf5,
    "tiff": _read_tiff,
    "zarr": _read_zarr,
    "npy": _read_npy,
}
_WRITERS: dict[str, Callable[[Path, str | None, Array, bool], None]] = {
    "hdf5": _write_hdf5,
    "tiff": _write_tiff,
    "zarr": _write_zarr,
    "npy": _write_npy,
}
