"""The table of tasks (the network's targets), one row per task, and values derived from the chosen rows.

The kind of a task defines its behaviour. To add a task of an existing kind, add a row here and change nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3


@dataclass(frozen=True)
class Kind:
    """Properties that all tasks of a kind share. The behaviour of each kind is in the tables listed below KINDS.

    Attributes:
        edges: Each output channel belongs to an edge. A task without its own edges takes those of the command line.
        classes: Channels are mutually exclusive classes, and each class may have its own weight in the loss.
        channels: The minimum and maximum number of output channels.
        counted: The suffix of the flag that sets the number of channels, such as "classes" in ``--sem_classes``.
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
    deepem.build.scores   the score (and tools/sheet.py, tools/view_forms.py and scripts/_panels.py, which draw)
"""


@dataclass(frozen=True)
class Task:
    """One target of the network.

    Attributes:
        flag: The name on the command line; ``--mit 0.5`` sets its weight in training.
        name: The network's output, its TensorBoard tags and its output files.
        source: The dataset's label from which the target is made.
        kind: One of KINDS; decides how the target is made, trained, drawn and blended.
        channels: Number of output channels; 0 if the command line sets it.
        help: One line for --help.
        edges: For affinities, the (dz, dy, dx) of each channel.
        fallback: A segmentation from which the target is derived if the data lack `source`.
        settable: Whether the flag `channels_flag` can set `channels`.
        class_weights: For classes, the weight of each class in the loss; empty for equal weights.
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
        """The labels from which this target can be made, preferred label first."""
        return (self.source,) if self.fallback is None else (self.source, self.fallback)

    @property
    def along_edges(self) -> bool:
        """Whether the command line sets the edges."""
        return KINDS[self.kind].edges and not self.edges

    @property
    def channels_flag(self) -> str:
        """The name of the flag that sets the number of channels (for `settable` tasks)."""
        return f"{self.flag}_{KINDS[self.kind].counted}"

    @property
    def weights_flag(self) -> str | None:
        """The name of the flag that sets the class weights; None if the kind has no classes."""
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
    """Return TASKS plus additional rows, such as those of a dataset module or (as plain values) of a checkpoint.

    Rows that are already in TASKS are not repeated.

    Raises:
        InputError: a row is incomplete or contradictory, or its flag already belongs to a different row.
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
    """Return what is wrong with a row and what it should be, as two texts; None for a valid row."""
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
    """Convert a row to numbers, strings and lists, for checkpoints, attributes and JSON."""
    return {
        **asdict(task),
        "edges": [list(edge) for edge in task.edges],
        "class_weights": list(task.class_weights),
    }


def from_plain(values: Mapping[str, Any]) -> Task:
    """Convert plain values, as made by `to_plain`, back to a row.

    Raises:
        InputError: the values do not describe a row.
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
    """Return the chosen rows in table order, with edges, channels and class weights from the command line filled in.

    Args:
        flags: Flags of the chosen tasks, such as ``("aff", "mit")``.
        edges: The edges of the long-range task.
        channels: Flag -> number of channels or classes, for `settable` tasks.
        class_weights: Flag -> one weight per class.
        rows: The table to choose from; TASKS by default.

    Raises:
        InputError: no task is chosen, a task is unknown, two tasks share an output, a long-range task has no edges, or
            a task cannot have that number of channels or weights.
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
    """Return the network's outputs: name -> (C, Z, Y, X), in table order."""
    return {task.name: (task.channels, *size) for task in tasks}


def labels(tasks: Iterable[Task]) -> tuple[str, ...]:
    """Return every label that the tasks could use, without repeats."""
    return tuple(dict.fromkeys(source for task in tasks for source in task.sources))


def by_output(
    names: Iterable[str], present: Iterable[str] | None = None, rows: Iterable[Task] | None = None
) -> dict[str, Task]:
    """Return the row of each output name, in table order; names that are not outputs are ignored.

    Two rows may share an output (syn and psd share synapse). Of these, the row whose label is in `present` (the labels
    in the data) is returned; without `present`, or if the data have both labels, the first row. `rows` is the table to
    search; TASKS by default.
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
