"""The table of targets: one row per task, and all that is derived from the chosen rows.

A task is a row; a kind is a behaviour. A new task of an existing kind is one more row here and nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

KINDS = ("affinity", "binary")


@dataclass(frozen=True)
class Task:
    """One target of the network.

    Attributes:
        flag: The name on the command line; ``--mit 0.5`` sets its weight in training.
        name: The network's output, its TensorBoard tags and its output files.
        source: The label that a dataset gives for it.
        kind: How the target is made, trained, drawn and blended; one of KINDS.
        channels: Number of output channels, each with its own sigmoid.
        help: One line for --help.
        edges: For affinities, the (dz, dy, dx) of each channel.
        fallback: A label that the target can be derived from where `source` is missing.
        settable: The flag ``--<flag>_num_channels`` sets `channels`.
    """

    flag: str
    name: str
    source: str
    kind: str
    channels: int
    help: str
    edges: tuple[Vec3, ...] = ()
    fallback: str | None = None
    settable: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """The labels that this target can be made from, best first."""
        return (self.source,) if self.fallback is None else (self.source, self.fallback)


NEAREST_EDGES: tuple[Vec3, ...] = ((0, 0, 1), (0, 1, 0), (1, 0, 0))

TASKS: tuple[Task, ...] = (
    Task("aff", "affinity", "seg", "affinity", 3, "affinities to the nearest voxel in x, y, z", NEAREST_EDGES),
    Task("long", "long_range", "seg", "affinity", 0, "affinities along --edges"),
    Task("bdr", "boundary", "bdr", "binary", 1, "boundary between cells", fallback="seg"),
    Task("syn", "synapse", "syn", "binary", 1, "synapse, or pre- and postsynaptic side", settable=True),
    Task("psd", "synapse", "psd", "binary", 1, "postsynaptic density"),
    Task("mit", "mitochondria", "mit", "binary", 1, "mitochondria"),
    Task("mye", "myelin", "mye", "binary", 1, "myelin"),
    Task("fld", "fold", "fld", "binary", 1, "fold of a section"),
    Task("blv", "blood_vessel", "blv", "binary", 2, "blood vessel", settable=True),
    Task("glia", "glia", "glia", "binary", 1, "glia"),
)


def choose(
    flags: Iterable[str], edges: Sequence[Vec3] = (), channels: Mapping[str, int] | None = None
) -> tuple[Task, ...]:
    """The rows of the chosen flags, in table order, with the edges and channel counts of the command line filled in.

    Args:
        flags: Flags of the chosen tasks, such as ``("aff", "mit")``.
        edges: The edges of the long-range task.
        channels: Flag -> number of channels, for the tasks that let it be set.

    Raises:
        InputError: no task, an unknown one, two that share an output, or a long-range task without edges.
    """
    flags, channels = set(flags), channels or {}
    every = ", ".join(f"--{task.flag}" for task in TASKS)
    if unknown := sorted(flags - {task.flag for task in TASKS}):
        raise InputError("task", unknown[0], f"one of {every}")
    if not flags:
        raise InputError("task", "none", f"a weight for at least one of {every}")
    chosen = tuple(_filled(task, edges, channels) for task in TASKS if task.flag in flags)
    for task in chosen:
        if same := [other.flag for other in chosen if other.name == task.name and other is not task]:
            raise InputError(f"--{task.flag}", f"together with --{same[0]}", f"one task for the output {task.name}")
    return chosen


def _filled(task: Task, edges: Sequence[Vec3], channels: Mapping[str, int]) -> Task:
    if task.kind == "affinity" and not task.edges:
        if not edges:
            raise InputError("--edges", "none", f"an edge z,y,x for each channel of --{task.flag}")
        return replace(task, edges=tuple(edges), channels=len(edges))
    if task.settable and task.flag in channels:
        if channels[task.flag] < 1:
            raise InputError(f"--{task.flag}_num_channels", channels[task.flag], "1 or more")
        return replace(task, channels=channels[task.flag])
    return task


def out_spec(tasks: Iterable[Task], size: Vec3) -> dict[str, tuple[int, int, int, int]]:
    """The network's outputs: name -> (C, Z, Y, X), in table order."""
    return {task.name: (task.channels, *size) for task in tasks}


def labels(tasks: Iterable[Task]) -> tuple[str, ...]:
    """Every label that the tasks could use, without repeats."""
    return tuple(dict.fromkeys(source for task in tasks for source in task.sources))


def by_output(names: Iterable[str], present: Iterable[str] | None = None) -> dict[str, Task]:
    """The row behind each output name, in table order; names that are no output are left out.

    Two rows may share an output (synapse: syn and psd). `present` lists the labels that the data has, which decides;
    without it, or where both are there, the first row holds.
    """
    names = set(names)
    have = None if present is None else set(present)
    rows: dict[str, Task] = {}
    for task in TASKS:
        if task.name not in names:
            continue
        held = rows.get(task.name)
        if held is None or (have is not None and held.source not in have and task.source in have):
            rows[task.name] = task
    return rows
