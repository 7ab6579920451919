"""Checkpoint files: whole or not at all, read without running code, told apart when they fail.

A checkpoint is one ``torch.save`` of tensors and plain Python values in ``models/model<N>.chkpt``, N the number of
optimiser steps done. Keys: ``iter``, ``state_dict`` (of the inner network), ``optimizer``, ``options``, ``spec`` and
what else exact resume needs. Checkpoints of the public DeepEM have the first three, or are a bare state dict.
"""

from __future__ import annotations

import os
import pickle
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepem.utils import checkpoint_contents
from deepem.utils.errors import InputError, warn
from deepem.utils.files import replacing

if TYPE_CHECKING:
    from torch import nn

State = dict[str, Any]

UNREADABLE = (
    *(OSError, EOFError, RuntimeError, zipfile.BadZipFile, pickle.UnpicklingError, struct.error),
    *(LookupError, ValueError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError, zlib.error),
)
"""What torch raises on a damaged file, which depends on where the damage is."""


RELISTED = 10
"""How often a folder is listed anew when a checkpoint vanishes while it is read."""


def path_of(folder: Path, number: int) -> Path:
    """The file of a checkpoint."""
    return folder / f"model{number}.chkpt"


def numbers(folder: Path) -> list[int]:
    """Numbers of the checkpoints in a folder, ascending; whether they can be read is not asked."""
    found = (re.fullmatch(r"model(\d+)\.chkpt", path.name) for path in folder.glob("model*.chkpt"))
    return sorted(int(match[1]) for match in found if match)


def read(path: Path) -> State:
    """The contents of a checkpoint on the CPU; a bare state dict comes back as ``{"state_dict": ...}``.

    So does the ``model`` of DaCapo's files, ``{"model": state dict, "optimizer": ...}``.

    Raises:
        InputError: the file is absent, truncated, damaged, or holds more than tensors and plain values.
    """
    import torch

    wants = "a checkpoint written by this program or by DeepEM"
    if others := _others(path):
        wants = f"{wants}; there: {others}" if path.is_file() else f"one of the checkpoints there: {others}"
    if not path.is_file():
        raise InputError(path, "no such file", wants)
    try:
        with open(path, "rb") as file:  # once: a run may remove the name meanwhile, and the file is still whole
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    if (damaged := archive.testzip()) is not None:  # torch does not check every record's checksum
                        raise InputError(path, f"a damaged file (checksum of {damaged})", wants)
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        if held := _other_objects(error):
            wants = "tensors and plain values alone: nothing else is loaded, for it could run code"
            raise InputError(path, f"other objects in it ({held})", wants) from error
        reason = _first_sentence(error)
        raise InputError(path, f"an unreadable or truncated file ({reason})", wants) from error
    if not isinstance(state, dict):
        raise InputError(path, f"a {type(state).__name__}", wants)
    if "state_dict" not in state:
        weights = state.get("model", state)
        if (
            not weights
            or not isinstance(weights, Mapping)
            or not all(isinstance(v, torch.Tensor) for v in weights.values())
        ):
            raise InputError(path, f"a dict of {', '.join(map(str, list(state)[:5])) or 'nothing'}", wants)
        state = {"state_dict": dict(weights)}
    checkpoint_contents.check(state, path)
    return state


def _other_objects(error: BaseException) -> str:
    """The kind of object that torch refused to load, if that is what an error is about."""
    found = re.search(r"(?:GLOBAL|class|global:?)\s+([A-Za-z_][\w.]*\.[\w.]+)", str(error))
    return found[1].rstrip(".") if found and isinstance(error, pickle.UnpicklingError) else ""


def _first_sentence(error: BaseException) -> str:
    """What an error says, without the advice that may follow."""
    return re.split(r"\.\s|\n", str(error).strip())[0][:200]


def _others(path: Path) -> str:
    """The numbers of the checkpoints beside a file."""
    there = [number for number in numbers(path.parent) if path_of(path.parent, number) != path]
    return ", ".join(map(str, there if len(there) <= 6 else [*there[:2], "...", *there[-3:]]))


def newest(folder: Path) -> tuple[int, State] | None:
    """The newest checkpoint that can be read, with its number, or None; those passed over get a warning line each."""
    told = set[int]()
    for _ in range(RELISTED):
        for number in reversed(numbers(folder)):
            try:
                return number, read(path_of(folder, number))
            except InputError as error:
                if not path_of(folder, number).exists():
                    break  # the run has written newer ones and removed this meanwhile
                if number not in told:
                    warn(f"passed over: {error}")
                told.add(number)
        else:
            return None
    return None


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        InputError: the disk cannot take it; what was there before is untouched.
    """
    import torch

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside, open(beside, "wb") as file:
            torch.save(dict(state), file)
    except (OSError, RuntimeError) as error:  # torch's zip writer reports a full disk as RuntimeError
        free = shutil.disk_usage(path.parent).free >> 20 if path.parent.is_dir() else 0
        reason = _first_sentence(error)
        raise InputError(
            path, f"a disk that cannot take it ({free} MiB free; {reason})", "room for a checkpoint"
        ) from error


def require_room(folder: Path, size: int) -> None:
    """Refuse to go on if the disk cannot take a checkpoint of about `size` bytes."""
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise InputError(folder, f"{free >> 20} MiB of free disk", f"{-(-size >> 20)} MiB for the next checkpoint")


def load_weights(model: nn.Module, weights: Mapping[str, Any], where: object, *, matching: bool = False) -> list[str]:
    """Load a state dict into a network and return the names of entries that were left as they were.

    Args:
        model: The inner network.
        weights: The state dict.
        where: What to name in an error, the checkpoint's path.
        matching: Load only entries whose name and shape agree.

    Raises:
        InputError: the checkpoint is of another architecture; the keys that differ are listed.
    """
    checkpoint_contents.require_finite(weights, where)
    own = model.state_dict()
    absent = [key for key in own if key not in weights]
    extra = [key for key in weights if key not in own]
    other = [key for key in own if key in weights and _shape(own[key]) != _shape(weights[key])]
    if (absent or extra or other) and not matching:
        parts = [
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for what, keys in (("missing", absent), ("unknown", extra), ("of another shape", other))
            if keys
        ]
        others = _others(where) if isinstance(where, Path) else ""
        wants = f"the same architecture{f'; there: {others}' if others else ''}"
        raise InputError(where, f"keys that differ from the network: {'; '.join(parts)}", wants)
    left = set(absent) | set(other)
    if left == set(own):
        raise InputError(where, "no entry that matches the network", "the same architecture, at least in part")
    model.load_state_dict({key: weights[key] for key in own if key not in left}, strict=not left)
    return [key for key in own if key in left]


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of an entry of a state dict; a module's extra state has none."""
    return tuple(value.shape) if hasattr(value, "shape") else None


def prune(folder: Path, keep: int, every: int, best: int | None) -> list[int]:
    """Remove checkpoints other than the `keep` newest, every `every`-th iteration's (0: none), and the best.

    Returns the numbers of those removed.
    """
    there = numbers(folder)
    gone = [n for n in there[:-keep] if n != best and not (every and n % every == 0)]
    for number in gone:
        path_of(folder, number).unlink()
    return gone


def link(folder: Path, name: str, number: int | None) -> None:
    """Make a name beside the checkpoints point to one of them, or to none. A relative link: the folder may move."""
    path = folder / name
    if number is None:
        path.unlink(missing_ok=True)
        return
    target = path_of(folder, number).name
    if path.is_symlink() and os.readlink(path) == target:
        return
    beside = folder / f".{name}.{os.getpid()}"
    try:
        os.symlink(target, beside)
        os.replace(beside, path)
    except OSError as error:
        warn(f"{path}: no link to {target}: {error.strerror}")


def set_aside(folder: Path, after: int) -> list[Path]:
    """Move checkpoints newer than `after` into a sub-folder of their own, and return where they went."""
    moved: list[Path] = []
    for number in numbers(folder):
        if number > after:
            target = _free_folder(folder, f"after{after}") if not moved else moved[0].parent
            target.mkdir(exist_ok=True)
            moved.append(path_of(target, number))
            os.replace(path_of(folder, number), moved[-1])
    return moved


def _free_folder(folder: Path, name: str) -> Path:
    tries = (folder / (name if i == 0 else f"{name}_{i}") for i in range(10**6))
    return next(path for path in tries if not path.exists())
