"""Kernels and factors as users write them, brought to one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from torch import nn

from deepem.utils.errors import InputError

Size = tuple[int, ...]
Kernel = int | Sequence[int]
"""A number for every axis, or one for each of [length,] z, y, x."""
Kernels = Sequence[Sequence[Kernel]]
"""Kernel sizes per level and convolution, finest level first."""
Padding = Literal["valid", "same"]
Pooling = Literal["max", "avg"]
Equivariant = Literal[True, False, "eval"]
"""When upsampled maps are cropped: always, never, or only in evaluation mode."""


def size_of(value: Kernel, dims: int, where: str, *, length: bool = False) -> Size:
    """Whole numbers above 0, one per axis; a single one stands for all axes.

    Args:
        value: What the user gave.
        dims: Axes of the network.
        where: What to name in an error.
        length: In three dimensions, four numbers are allowed, the first for the length axis.

    Raises:
        InputError: another number of axes, or a number below 1.
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
    """A factor per axis for each level.

    Raises:
        InputError: factors of another number of axes than 2 or 3, or that differ in it.
    """
    counts = {len(f) for f in value if not isinstance(f, int)} if isinstance(value, Sequence) else set()
    found = dims or (counts.pop() if counts else 3)
    if not isinstance(value, Sequence) or not value or counts - {found} or found not in (2, 3):
        raise InputError(where, value, "factors of 2 or 3 axes, the same number for each level")
    return [size_of(f, found, where) for f in value]


def kernels_of(value: Kernels | None, dims: int, levels: int, where: str, *, bottom: bool = False) -> list[list[Size]]:
    """Kernel sizes per level, two of 3 by default.

    Args:
        value: What the user gave.
        dims: Axes of the network.
        levels: Number of lists that are wanted.
        where: What to name in an error.
        bottom: One list less is allowed; the last one then serves the lowest level too.

    Raises:
        InputError: another number of lists, an empty one, or a kernel of another number of axes.
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
    """A choice per level; a single one stands for all.

    Raises:
        InputError: another number of choices than levels.
    """
    flags = [value] * levels if isinstance(value, bool) else list(value)
    if len(flags) != levels:
        raise InputError(where, value, f"one choice, or {levels}, one per level")
    return flags


def choice_of(value: object, allowed: Sequence[object], where: str) -> None:
    """Refuse a value that is none of those allowed.

    Raises:
        InputError: such a value.
    """
    if not any(value is a or (isinstance(a, str) and value == a) for a in allowed):
        raise InputError(where, value, f"one of {', '.join(map(str, allowed))}")


def activation_of(name: str) -> nn.Module:
    """An activation of torch.nn by the name of its class.

    Raises:
        InputError: torch.nn has no such class, or it needs arguments.
    """
    try:
        return cast("nn.Module", getattr(nn, name)())
    except (AttributeError, TypeError) as error:
        raise InputError("activation", name, "the name of a class of torch.nn, such as ReLU, ELU, Sigmoid") from error
