"""The rows of `deepem summary` for a CNNectome U-Net: its context, the patches that fit, and the cost of padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from typing import Any

from deepem.cli.plugins import PlugIn
from deepem.models.cnnectome.sizes import Sizes, zyx
from deepem.utils.geometry import Vec3, vec3

Rows = Iterator[tuple[str, str]]


def rows(sizes: Sizes, fov: Vec3, voxel_size_nm: tuple[float, float, float]) -> Rows:
    """Return the rows about the patch, the context, and the patches that fit."""
    training, out = (sizes.output_size(fov, training=mode) for mode in (True, False))
    yield "patch", f"{comma(fov)} -> {comma(out)}" + (f" ({comma(training)} in training)" if training != out else "")
    seen = whole(sizes).context
    in_nm = ",".join(f"{n * nm:g}" for n, nm in zip(seen, voxel_size_nm, strict=True))
    yield "context", f"{comma(seen)} voxels z,y,x = {in_nm} nm, both sides together"
    yield "smallest patch", f"{comma(sizes.smallest())} ({comma(sizes.smallest(training=True))} in training)"
    yield "step between patches", comma(sizes.step)


def whole(sizes: Sizes) -> Sizes:
    """Sizes of the network without padding or crops; every voxel of its output sees its whole context."""
    return replace(sizes, padded=False, equivariant=False, finer=tuple((f, k, False) for f, k, _ in sizes.finer))


def valid_against_same(plug_in: PlugIn, sizes: Sizes, fov: Vec3, flops: Callable[[PlugIn, Vec3], int]) -> Rows:
    """Return FLOPs with and without padding, per output voxel that sees its whole context within the patch.

    Args:
        plug_in: The model.
        sizes: Sizes of the model.
        fov: The patch; a network that it does not fit uses the next larger patch that fits.
        flops: Returns the FLOPs of a model for a patch.
    """
    found = []
    for padding in ("valid", "same"):
        padded = padding == "same"
        fits = replace(whole(sizes), padded=padded)
        patch = vec3(_next(fits, whole(sizes), axis, n) for axis, n in enumerate(fov))
        counted = prod(whole_output(whole(sizes), patch))
        flags: dict[str, Any] = {**plug_in.flags, "padding": padding, "equivariant": False}
        found.append((padding, patch, flops(replace(plug_in, flags=flags), patch) / counted))
    (_, valid, few), (_, same, many) = found
    yield (
        "FLOPs at whole context",
        (
            f"{few:,.0f} per output voxel with padding valid ({comma(valid)}), {many:,.0f} with same ({comma(same)}), "
            f"{many / few:.2f} times"
        ),
    )


def whole_output(sizes: Sizes, patch: Vec3) -> list[int]:
    """Size of the part of the output that sees its whole context within the patch, rounded down to whole voxels."""
    finer = [prod(zyx(factor, 1)[axis] for factor, _, _ in sizes.finer) for axis in range(3)]
    return [max(n - c, 0) * f for n, c, f in zip(patch, sizes.context, finer, strict=True)]


def _next(fits: Sizes, seen: Sizes, axis: int, size: int) -> int:
    """Return the next size that fits and leaves some output voxels that see their whole context."""
    least = max(size, seen.context[axis] + 1)
    return next(n for n in range(least, least + 10**4) if fits.course(axis, n) is not None)


def comma(values: tuple[int, ...]) -> str:
    """Return z,y,x as written on the command line."""
    return ",".join(map(str, values))
