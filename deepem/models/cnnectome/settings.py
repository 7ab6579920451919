"""Normalise kernels and factors given by the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from torch import nn

from deepem.utils.errors import InputError

Size = tuple[int, ...]
Kernel = int | Sequence[int]
"""A number for all axes, or one number for each of [length,] z, y, x."""
Kernels = Sequence[Sequence[Kernel]]
"""Kernel sizes per level and convolution, finest level first."""
Padding = Literal["valid", "same"]
Pooling = Literal["max", "avg"]
Equivariant = Literal[True, False, "eval"]
"""Whether upsampled maps are cropped: always, never, or only in evaluation mode."""


def size_of(value: Kernel, dims: int, where: str, *, length: bool = False) -> Size:
    """Normalise to whole numbers above 0, one per axis; a single number is used for all axes.

    Args:
        value: The user's value.
        dims: Number of axes of the network.
        where: Name used in errors.
        length: In three dimensions, four numbers are allowed, the first for the length axis.

    Raises:
        InputError: the number of axes is wrong, or a number is below 1.
    """
    numbers = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(numbers) == 1:
        numbers *= dims
    allowed = {dims, 4} if length and dims == 3 else {dims}
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers)
    if len(numbers) not in allowed or not whole:
        counts = " or ".join(map(str, sorted(allowed)))
        raise InputError(where, value, f"{counts} whole numbers above 0, or one for all")
    return numbers


def factors_of(value: Sequence[Kernel], where: str = "downsample_factors", dims: int | None = None) -> list[Size]:
    """Normalise to one factor per axis for each level.

    Raises:
        InputError: a factor does not have 2 or 3 axes, or factors have different numbers of axes.
    """
    counts = {len(f) for f in value if not isinstance(f, int)} if isinstance(value, Sequence) else set()
    found = dims or (counts.pop() if counts else 3)
    if not isinstance(value, Sequence) or not value or counts - {found} or found not in (2, 3):
        raise InputError(where, value, "factors of 2 or 3 axes, the same number for each level")
    return [size_of(f, found, where) for f in value]


def kernels_of(value: Kernels | None, dims: int, levels: int, where: str, *, bottom: bool = False) -> list[list[Size]]:
    """Normalise kernel sizes per level; two kernels of 3 by default.

    Args:
        value: The user's value.
        dims: Number of axes of the network.
        levels: Expected number of lists.
        where: Name used in errors.
        bottom: Allow one list less; the last one is then used for the lowest level too.

    Raises:
        InputError: the number of lists is wrong, a list is empty, or a kernel has the wrong number of axes.
    """
    if value is None:
        return [[(3,) * dims] * 2 for _ in range(levels)]
    lists = [[size_of(k, dims, where, length=True) for k in level] for level in value]
    if bottom and len(lists) == levels - 1:
        lists.append(lists[-1])
    if len(lists) != levels or not all(lists):
        wants = f"{levels - 1} or {levels}" if bottom else levels
        raise InputError(where, f"{len(lists)} lists of {list(map(len, lists))} kernels", f"{wants} lists, none empty")
    return lists


def flags_of(value: bool | Sequence[bool], levels: int, where: str) -> list[bool]:
    """Normalise to one choice per level; a single choice is used for all levels.

    Raises:
        InputError: the number of choices differs from the number of levels.
    """
    flags = [value] * levels if isinstance(value, bool) else list(value)
    if len(flags) != levels:
        raise InputError(where, value, f"one choice, or {levels}, one per level")
    return flags


def choice_of(value: object, allowed: Sequence[object], where: str) -> None:
    """Raise unless the value is one of those allowed.

    Raises:
        InputError: the value is not allowed.
    """
    if not any(value is a or (isinstance(a, str) and value == a) for a in allowed):
        raise InputError(where, value, f"one of {', '.join(map(str, allowed))}")


def activation_of(name: str) -> nn.Module:
    """Look up an activation of torch.nn by its class name.

    Raises:
        InputError: torch.nn has no such class, or it needs arguments.
    """
    try:
        return cast("nn.Module", getattr(nn, name)())
    except (AttributeError, TypeError) as error:
        raise InputError("activation", name, "the name of a class of torch.nn, such as ReLU, ELU, Sigmoid") from error
