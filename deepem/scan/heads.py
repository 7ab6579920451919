"""Resolve the edges of a network's affinity outputs from the arguments of `predict` and of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepem.scan.kinds import edges_by_output
from deepem.scan.weights import Blend
from deepem.tasks import TASKS, Task
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

Edges = dict[str, tuple[Vec3, ...]]
Given = Sequence[Vec3] | Mapping[str, Sequence[Vec3]] | None


def edges_of(given: Given, channels: Mapping[str, int], where: str = "edges", rows: Sequence[Task] = TASKS) -> Edges:
    """Return the edges of each affinity output; other outputs are omitted.

    Args:
        given: Edges by output name, or one list. A list applies to outputs with as many channels as it has edges: to
            ``long_range`` if it is one of them, otherwise to all except those of tasks without edges. Edges defined in
            the task table, such as the nearest three of ``affinity``, need not be given.
        channels: Output name -> number of channels.
        rows: The table of tasks.
        where: The name to use in errors.

    Raises:
        InputError: edges are given for an output that does not exist or has a different number of channels.
    """
    own = edges_by_output(rows).items()
    found: Edges = {name: edges for name, edges in own if edges and channels.get(name) == len(edges)}
    if given is None:
        return found
    return found | _told(given, channels, where, rows)


def _told(
    given: Sequence[Vec3] | Mapping[str, Sequence[Vec3]],
    channels: Mapping[str, int],
    where: str,
    rows: Sequence[Task] = TASKS,
) -> Edges:
    if not isinstance(given, Mapping):
        edges = tuple(vec3(edge) for edge in given)
        others = {row.name for row in rows} - set(edges_by_output(rows))
        fitting = [name for name, count in channels.items() if count == len(edges) and name not in others]
        given = {name: edges for name in fitting if name == "long_range" or "long_range" not in fitting}
        if not given:
            raise InputError(where, f"{len(edges)} edges", f"one per channel of an output; there are {dict(channels)}")
    for name, own in given.items():
        if channels.get(name) != len(own):
            raise InputError(where, f"{len(own)} edges for {name}", f"one per channel; there are {dict(channels)}")
    return {name: tuple(vec3(edge) for edge in own) for name, own in given.items()}


def blends(profile: str, mask_edges: Any, channels: Mapping[str, int], edges: Edges) -> dict[str, Blend]:
    """Return the blending of each output.

    `mask_edges` are edges as in `edges_of`, True for each output's own edges, or empty for no masking.
    """
    masked: Edges = {}
    if mask_edges is True:
        masked = edges
    elif mask_edges:
        masked = _told(mask_edges, channels, "mask_edges")
    return {name: Blend(profile, masked.get(name)) for name in channels}
