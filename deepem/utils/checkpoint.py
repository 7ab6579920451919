"""Checkpoint files: written atomically and read without running code, with a specific error for each kind of damage.

A checkpoint is one ``torch.save`` of tensors and plain Python values in ``models/model<N>.chkpt``, where N is the
number of optimiser steps done. Its keys are ``iter``, ``state_dict`` (of the inner network), ``optimizer``,
``options``, ``spec``, and others that exact resume needs. Checkpoints of the public DeepEM have the first three keys,
or are a bare state dict.
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
"""Exceptions that torch raises on a damaged file, depending on where the damage is."""


RELISTED = 10
"""Number of times to list the folder again if a checkpoint disappears while it is read."""


def path_of(folder: Path, number: int) -> Path:
    """Return the path of a checkpoint."""
    return folder / f"model{number}.chkpt"


def numbers(folder: Path) -> list[int]:
    """Return the numbers of the checkpoints in a folder, ascending, without checking that they can be read."""
    found = (re.fullmatch(r"model(\d+)\.chkpt", path.name) for path in folder.glob("model*.chkpt"))
    return sorted(int(match[1]) for match in found if match)


def read(path: Path) -> State:
    """Return the contents of a checkpoint, on the CPU.

    A bare state dict is returned as ``{"state_dict": ...}``, and so is the ``model`` of a DaCapo checkpoint,
    ``{"model": state dict, "optimizer": ...}``.

    Raises:
        InputError: the file is absent, truncated or damaged, or contains more than tensors and plain values.
    """
    import torch

    wants = "a checkpoint written by this program or by DeepEM"
    if others := _others(path):
        wants = f"{wants}; there: {others}" if path.is_file() else f"one of the checkpoints there: {others}"
    if not path.is_file():
        raise InputError(path, "no such file", wants)
    try:
        with open(path, "rb") as file:  # open once: the open file stays readable even if the run deletes it
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    if (damaged := archive.testzip()) is not None:  # torch does not verify the checksum of every record
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
    for key in ("model_state", "model"):  # keys under which public backbones store their weights
        state = {"state_dict": state[key]} if _is_bare(state.get(key)) and "state_dict" not in state else state
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


def _is_bare(held: object) -> bool:
    """Whether a value is a bare state dict."""
    import torch

    return isinstance(held, dict) and bool(held) and all(isinstance(value, torch.Tensor) for value in held.values())


def _other_objects(error: BaseException) -> str:
    """Return the type of object that torch refused to load, if that caused the error."""
    found = re.search(r"(?:GLOBAL|class|global:?)\s+([A-Za-z_][\w.]*\.[\w.]+)", str(error))
    return found[1].rstrip(".") if found and isinstance(error, pickle.UnpicklingError) else ""


def _first_sentence(error: BaseException) -> str:
    """Return the message of an error, without any advice that follows it."""
    return re.split(r"\.\s|\n", str(error).strip())[0][:200]


def _others(path: Path) -> str:
    """List the numbers of the checkpoints in the same folder as a file."""
    there = [number for number in numbers(path.parent) if path_of(path.parent, number) != path]
    return ", ".join(map(str, there if len(there) <= 6 else [*there[:2], "...", *there[-3:]]))


def newest(folder: Path) -> tuple[int, State] | None:
    """Return the newest readable checkpoint and its number, or None; warn of each unreadable one that is skipped."""
    told = set[int]()
    for _ in range(RELISTED):
        for number in reversed(numbers(folder)):
            try:
                return number, read(path_of(folder, number))
            except InputError as error:
                if not path_of(folder, number).exists():
                    break  # meanwhile the run has written newer checkpoints and removed this one
                if number not in told:
                    warn(f"passed over: {error}")
                told.add(number)
        else:
            return None
    return None


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Raises:
        InputError: the disk cannot take it; an existing file of that name is unchanged.
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
    """Raise an error if the disk has no room for a checkpoint of about `size` bytes."""
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    if free < size:
        raise InputError(folder, f"{free >> 20} MiB of free disk", f"{-(-size >> 20)} MiB for the next checkpoint")


def weights_of(state: Mapping[str, Any], where: object, *, raw: bool = False) -> Mapping[str, Any]:
    """Return the weights to use from a checkpoint: the average `ema` if it has one, else the trained ones.

    Args:
        state: The contents of the checkpoint.
        where: The name to use in errors, such as the checkpoint's path.
        raw: Return the trained weights even if there is an average.

    Raises:
        InputError: the trained weights are not finite: the run has failed, whatever its average still holds.
    """
    trained: Mapping[str, Any] = state["state_dict"]
    checkpoint_contents.require_finite(trained, where)
    return trained if raw else state.get("ema") or trained


def load_weights(model: nn.Module, weights: Mapping[str, Any], where: object, *, matching: bool = False) -> list[str]:
    """Load a state dict into a network and return the names of entries that were not loaded.

    Args:
        model: The inner network.
        weights: The state dict.
        where: The name to use in errors, such as the checkpoint's path.
        matching: Load only entries whose name and shape match.

    Raises:
        InputError: the checkpoint belongs to a different architecture; the error lists the keys that differ.
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
    """Return the shape of a state dict entry; a module's extra state has no shape."""
    return tuple(value.shape) if hasattr(value, "shape") else None


def prune(folder: Path, keep: int, every: int, best: int | None) -> list[int]:
    """Remove old checkpoints and return their numbers.

    Keep the `keep` newest, those of every `every`-th iteration (0: none), and the best.
    """
    there = numbers(folder)
    gone = [n for n in there[:-keep] if n != best and not (every and n % every == 0)]
    for number in gone:
        path_of(folder, number).unlink()
    return gone


def link(folder: Path, name: str, number: int | None) -> None:
    """Create a relative link to a checkpoint in the same folder, or remove it; the folder can then be moved."""
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
    """Move checkpoints newer than `after` into a new sub-folder and return their new paths."""
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
