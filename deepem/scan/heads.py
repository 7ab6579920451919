"""The edges of a network's affinity outputs, as `predict` and the command line are given them."""

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
    """The edges of each affinity output; outputs that are no affinities are left out.

    Args:
        given: By output name; or one list, which holds for the outputs with as many channels that could be affinities:
            ``long_range`` before all others, else every one that is no task without edges. A row's own edges, such as
            the nearest three of ``affinity``, need not be told.
        channels: The network's outputs.
        rows: The table of tasks.
        where: What an error names.

    Raises:
        InputError: edges for an output that is not there or has another number of channels.
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
    """How each output is blended; `mask_edges` are edges as in `edges_of`, true for the outputs' own, or nothing."""
    masked: Edges = {}
    if mask_edges is True:
        masked = edges
    elif mask_edges:
        masked = _told(mask_edges, channels, "mask_edges")
    return {name: Blend(profile, masked.get(name)) for name in channels}
