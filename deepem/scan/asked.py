"""Check the arguments of `predict`: sizes, edges and flips."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from deepem.scan.flips import Flip
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3


def size_of(name: str, given: Any) -> Vec3:
    """Return a size in (z, y, x) voxels.

    Raises:
        InputError: it is not three whole numbers of 1 or more.
    """
    size = _vector(given)
    if size is None or min(size) < 1:
        raise InputError(name, given, "three whole numbers z,y,x of 1 or more")
    return size


def edges_given(name: str, given: Any) -> Any:
    """Return edges as tuples in a list, or in a mapping of lists; None, true and false are returned as they are.

    Raises:
        InputError: an edge is not three whole numbers.
    """
    if given is None or isinstance(given, bool):
        return given
    if isinstance(given, Mapping):
        return {output: edges_given(f"{name} of {output}", own) for output, own in given.items()}
    found = [_vector(edge) for edge in given] if isinstance(given, Sequence | np.ndarray) else [None]
    if None in found:
        raise InputError(name, given, "edges (z, y, x) of three whole numbers each, one for each channel")
    return found


def flips_of(numbers: Any) -> list[Flip]:
    """Return the flips of a list of numbers.

    Raises:
        InputError: it is not a list of numbers from 0 to 15.
    """
    if numbers is None:
        return []
    whole = isinstance(numbers, Sequence | np.ndarray) and not isinstance(numbers, str)
    if not whole or not all(_whole(number) for number in numbers):
        raise InputError("test_aug", numbers, "a list of numbers from 0 to 15")
    return [Flip.of(int(number)) for number in numbers]


def temperature_of(given: Any) -> float | None:
    """Return the temperature.

    Raises:
        InputError: it is not a finite number.
    """
    if given is not None and not (isinstance(given, int | float | np.number) and math.isfinite(given)):
        raise InputError("temperature", given, "a finite number")
    return None if given is None else float(given)


def device_asked(given: Any) -> torch.device | None:
    """Return the device.

    Raises:
        InputError: torch knows no such device.
    """
    try:
        return None if given is None else torch.device(given)
    except (RuntimeError, TypeError) as error:
        raise InputError("device", given, "a device of torch, such as cpu or cuda:0") from error


def _vector(given: Any) -> Vec3 | None:
    """Return three whole numbers; None for anything else."""
    values = list(given) if isinstance(given, Sequence | np.ndarray | torch.Tensor) else []
    return vec3(values) if len(values) == 3 and all(_whole(value) for value in values) else None


def _whole(value: Any) -> bool:
    try:
        return not isinstance(value, str | bool) and int(value) == value
    except (TypeError, ValueError, OverflowError):
        return False
