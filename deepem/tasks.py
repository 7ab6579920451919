"""The table of targets: one row per task, and all that is derived from the chosen rows.

A task is a row; a kind is a behaviour. A new task of an existing kind is one more row here and nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3


@dataclass(frozen=True)
class Kind:
    """What the rows of a kind have in common. What a kind does stands in a table of each layer, see KINDS.

    Attributes:
        edges: Each output channel belongs to an edge; a row without edges takes those of the command line.
        classes: Channels are classes that exclude each other, and may have a weight each in the loss.
        channels: The least and the greatest number of output channels.
        counted: What channels are called in the flag that sets their number, ``--sem_classes``.
    """

    edges: bool = False
    classes: bool = False
    channels: tuple[int, int] = (1, 1 << 16)
    counted: str = "num_channels"


KINDS: dict[str, Kind] = {
    "affinity": Kind(edges=True),
    "binary": Kind(),
    "semantic": Kind(classes=True, channels=(2, 256), counted="classes"),
    "instance": Kind(channels=(1, 255), counted="classes"),
}
"""The kinds of tasks. Each layer has a table with one entry per kind::

    deepem.data.kinds     how the label is stored, and how the target is made from it
    deepem.loss.kinds     the criterion, where the network does not compute its losses itself
    deepem.train.render   the picture in the log
    deepem.scan.kinds     from logits to probabilities, and how flips and edges act on them
    deepem.test.kinds     the files that are written, with their type and attributes
    deepem.build.scores   the score (and tools/sheet.py and scripts/_panels.py, which draw)
"""


@dataclass(frozen=True)
class Task:
    """One target of the network.

    Attributes:
        flag: The name on the command line; ``--mit 0.5`` sets its weight in training.
        name: The network's output, its TensorBoard tags and its output files.
        source: The label that a dataset gives for it.
        kind: How the target is made, trained, drawn and blended; one of KINDS.
        channels: Number of output channels; 0 where the command line says how many.
        help: One line for --help.
        edges: For affinities, the (dz, dy, dx) of each channel.
        fallback: A segmentation that the target can be derived from where `source` is missing.
        settable: The flag `channels_flag` sets `channels`.
        class_weights: For classes, the weight of each in the loss; none: all count alike.
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
    class_weights: tuple[float, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """The labels that this target can be made from, best first."""
        return (self.source,) if self.fallback is None else (self.source, self.fallback)

    @property
    def along_edges(self) -> bool:
        """Whether the edges are those of the command line."""
        return KINDS[self.kind].edges and not self.edges

    @property
    def channels_flag(self) -> str:
        """The name of the flag for the number of channels, where it can be set."""
        return f"{self.flag}_{KINDS[self.kind].counted}"

    @property
    def weights_flag(self) -> str | None:
        """The name of the flag for the weights of the classes, where there are classes."""
        return f"{self.flag}_class_weights" if KINDS[self.kind].classes else None


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
    Task("sem", "semantic", "sem", "semantic", 0, "classes that exclude each other", settable=True),
    Task("inst", "instance", "seg", "instance", 1, "objects with boxes, classes and masks", settable=True),
)


def table(rows: Iterable[Task | Mapping[str, Any]]) -> tuple[Task, ...]:
    """TASKS and further rows, such as those of a dataset module or, as plain values, of a checkpoint.

    A row that is in TASKS already is not repeated.

    Raises:
        InputError: a row that says too little or contradicts itself, or another row of a flag that is taken.
    """
    found = {task.flag: task for task in TASKS}
    for row in rows:
        task = row if isinstance(row, Task) else from_plain(row)
        if flaw := flaw_of(task):
            raise InputError(f"task {task.flag}", *flaw)
        if found.setdefault(task.flag, task) != task:
            raise InputError(f"task {task.flag}", "two different rows", "a flag for each")
    return tuple(found.values())


def flaw_of(task: Task) -> tuple[str, str] | None:
    """What is wrong with a row, and what it wants; None where it is whole."""
    names = [task.flag, task.name, task.source, *([task.fallback] if task.fallback is not None else [])]
    if bad := [name for name in names if not (isinstance(name, str) and name.isidentifier())]:
        return repr(bad[0]), "names of letters, digits and _"
    if task.kind not in KINDS:
        return f"the kind {task.kind}", f"one of {', '.join(KINDS)}"
    kind, (least, most) = KINDS[task.kind], KINDS[task.kind].channels
    if kind.edges and task.channels != len(task.edges):
        return f"{task.channels} channels for {len(task.edges)} edges", "one per edge"
    if not kind.edges and task.edges:
        return f"edges for the kind {task.kind}", "none"
    if not least <= task.channels <= most and (task.channels or not (task.along_edges or task.settable)):
        return f"{task.channels} channels", f"{least} to {most}"
    if task.class_weights and (not kind.classes or task.channels not in (0, len(task.class_weights))):
        return f"{len(task.class_weights)} class weights", "one per class"
    if min(task.class_weights, default=0) < 0:
        return f"the class weight {min(task.class_weights):g}", "weights of 0 or more"
    if task.fallback == task.source:
        return f"the fallback {task.source}", "another label than the row's own"
    return None if task.help else ("no help", "a line for --help")


def to_plain(task: Task) -> dict[str, Any]:
    """A row as numbers, texts and lists, for checkpoints, attributes and JSON."""
    return {
        **asdict(task),
        "edges": [list(edge) for edge in task.edges],
        "class_weights": list(task.class_weights),
    }


def from_plain(values: Mapping[str, Any]) -> Task:
    """The row behind plain values.

    Raises:
        InputError: values that are no row.
    """
    try:
        known = {field.name: values[field.name] for field in fields(Task) if field.name in values}
        known["edges"] = tuple(vec3(edge) for edge in known.get("edges", ()))
        known["class_weights"] = tuple(float(weight) for weight in known.get("class_weights", ()))
        return Task(**{**known, "channels": int(known["channels"])})
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError("task", f"{values!r:.200}", "the fields of a row of deepem.tasks") from error


def choose(
    flags: Iterable[str],
    edges: Sequence[Vec3] = (),
    channels: Mapping[str, int] | None = None,
    class_weights: Mapping[str, Sequence[float]] | None = None,
    rows: Sequence[Task] | None = None,
) -> tuple[Task, ...]:
    """The chosen rows, in table order, with what the command line says of them filled in.

    Args:
        flags: Flags of the chosen tasks, such as ``("aff", "mit")``.
        edges: The edges of the long-range task.
        channels: Flag -> number of channels or classes, for the tasks that let it be set.
        class_weights: Flag -> a weight per class.
        rows: The table to choose from; TASKS by default.

    Raises:
        InputError: no task, an unknown one, two that share an output, a long-range task without edges, or numbers of
            channels or weights that a task cannot have.
    """
    rows = TASKS if rows is None else rows
    flags, channels, class_weights = set(flags), channels or {}, class_weights or {}
    every = ", ".join(f"--{task.flag}" for task in rows)
    if unknown := sorted(flags - {task.flag for task in rows}):
        raise InputError("task", unknown[0], f"one of {every}")
    if not flags:
        raise InputError("task", "none", f"a weight for at least one of {every}")
    chosen = tuple(
        _weighted(_filled(task, edges, channels), class_weights.get(task.flag, ()))
        for task in rows
        if task.flag in flags
    )
    for task in chosen:
        if same := [other.flag for other in chosen if other.name == task.name and other is not task]:
            raise InputError(f"--{task.flag}", f"together with --{same[0]}", f"one task for the output {task.name}")
    return chosen


def _filled(task: Task, edges: Sequence[Vec3], channels: Mapping[str, int]) -> Task:
    if task.along_edges:
        if not edges:
            raise InputError("--edges", "none", f"an edge z,y,x for each channel of --{task.flag}")
        return replace(task, edges=tuple(edges), channels=len(edges))
    if not task.settable:
        return task
    count, (least, most) = channels.get(task.flag, task.channels), KINDS[task.kind].channels
    if task.flag not in channels and not count:
        raise InputError(f"--{task.channels_flag}", "none", f"the number of channels of --{task.flag}")
    if not least <= count <= most:
        wants = f"{least} or more" if count < least else f"at most {most}"
        raise InputError(f"--{task.channels_flag}", count, wants)
    return replace(task, channels=count)


def _weighted(task: Task, weights: Sequence[float]) -> Task:
    weights = tuple(weights) or task.class_weights
    if weights and (len(weights) != task.channels or min(weights) < 0):
        raise InputError(
            f"--{task.weights_flag}", " ".join(f"{w:g}" for w in weights), f"{task.channels} weights of 0 or more"
        )
    return replace(task, class_weights=weights)


def out_spec(tasks: Iterable[Task], size: Vec3) -> dict[str, tuple[int, int, int, int]]:
    """The network's outputs: name -> (C, Z, Y, X), in table order."""
    return {task.name: (task.channels, *size) for task in tasks}


def labels(tasks: Iterable[Task]) -> tuple[str, ...]:
    """Every label that the tasks could use, without repeats."""
    return tuple(dict.fromkeys(source for task in tasks for source in task.sources))


def by_output(
    names: Iterable[str], present: Iterable[str] | None = None, rows: Iterable[Task] | None = None
) -> dict[str, Task]:
    """The row behind each output name, in table order; names that are no output are left out.

    Two rows may share an output (synapse: syn and psd). `present` lists the labels that the data has, which decides;
    without it, or where both are there, the first row holds. `rows` is the table to look in; TASKS by default.
    """
    names = set(names)
    have = None if present is None else set(present)
    found: dict[str, Task] = {}
    for task in TASKS if rows is None else rows:
        if task.name not in names:
            continue
        held = found.get(task.name)
        if held is None or (have is not None and held.source not in have and task.source in have):
            found[task.name] = task
    return found
