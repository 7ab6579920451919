"""The edges of a network's affinity outputs, as `predict` and the command line are given them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deepem import tasks
from deepem.scan.weights import Blend
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

Edges = dict[str, tuple[Vec3, ...]]
Given = Sequence[Vec3] | Mapping[str, Sequence[Vec3]] | None


def edges_of(given: Given, channels: Mapping[str, int], where: str = "edges") -> Edges:
    """The edges of each affinity output; outputs that are no affinities are left out.

    Args:
        given: By output name; or one list, which holds for the outputs with as many channels that could be affinities:
            ``long_range`` before all others, else every one that is no binary task. ``affinity`` has the nearest three
            without being told.
        channels: The network's outputs.
        where: What an error names.

    Raises:
        InputError: edges for an output that is not there or has another number of channels.
    """
    nearest = tuple(tasks.NEAREST_EDGES)
    found: Edges = {"affinity": nearest} if channels.get("affinity") == len(nearest) else {}
    if given is None:
        return found
    return found | _told(given, channels, where)


def _told(given: Sequence[Vec3] | Mapping[str, Sequence[Vec3]], channels: Mapping[str, int], where: str) -> Edges:
    if not isinstance(given, Mapping):
        edges = tuple(vec3(edge) for edge in given)
        binary = {task.name for task in tasks.TASKS if task.kind != "affinity"}
        fitting = [name for name, count in channels.items() if count == len(edges) and name not in binary]
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
