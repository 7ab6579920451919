"""The criterion of each kind of task.

CRITERIA has one entry per kind of `deepem.tasks`: (row, How) -> criterion, or None if the network must compute its
losses itself. A criterion is called with (logits, target, mask) and returns (loss, count), see `deepem.loss.voxel`.
A criterion that can balance classes has the attribute `class_balancing` and a method `classes(target, mask)`. If a
batch is processed in parts, the criterion takes the sum of `classes` over all parts as a fourth argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, Union

from torch import nn

from deepem.loss.affinity import AffinityLoss
from deepem.loss.balance import BalancedLoss
from deepem.loss.semantic import SemanticLoss
from deepem.loss.voxel import BCELoss, MSELoss
from deepem.tasks import Task
from deepem.utils.errors import InputError

T = TypeVar("T")

PerTask = Union[T, Mapping[str, T]]  # noqa: UP007 - a type variable has no | in Python 3.10
"""One value for all tasks, or a mapping from task flags to values, where "all" is the default."""

DEFAULTS: dict[str, Any] = {"loss": "BCELoss", "margin0": 0.0, "margin1": 0.0, "class_balancing": False}

LOSSES: dict[str, type[nn.Module]] = {"BCELoss": BCELoss, "MSELoss": MSELoss}


@dataclass(frozen=True)
class How:
    """The settings of one task's criterion; see `criterion`.

    Attributes:
        named: Names of the settings that were given for this very task rather than for all tasks.
    """

    loss: str
    size_average: bool
    margin0: float
    margin1: float
    inverse: bool
    class_balancing: bool
    default_aux: bool
    named: frozenset[str] = frozenset()

    def margin(self, name: str) -> float:
        """Return a margin for a non-affinity task: 0 with `default_aux`, unless the margin was given for this task."""
        value: float = getattr(self, name)
        return 0.0 if self.default_aux and name not in self.named else value


def _affinity(task: Task, how: How) -> nn.Module:
    voxel = LOSSES[how.loss](size_average=False, margin0=how.margin0, margin1=how.margin1, inverse=how.inverse)
    return AffinityLoss(task.edges, voxel, how.size_average, how.class_balancing)


def _binary(task: Task, how: How) -> nn.Module:
    loss = LOSSES[how.loss if "loss" in how.named else "BCELoss"]
    balances = how.class_balancing and "class_balancing" in how.named
    made = loss(
        size_average=how.size_average and not balances,
        margin0=how.margin("margin0"),
        margin1=how.margin("margin1"),
        inverse=how.inverse and not how.default_aux,
    )
    return BalancedLoss(made, how.size_average) if balances else made


def _semantic(task: Task, how: How) -> nn.Module:
    if refused := how.named - {"class_balancing"}:
        name = min(refused)
        wants = f"no --{name} for {task.flag}: classes that exclude each other have cross-entropy, without margins"
        raise InputError(name, f"{task.flag}={getattr(how, name)}", wants)
    return SemanticLoss(task.channels, task.class_weights, how.size_average, how.class_balancing)


def _of_the_network(task: Task, how: How) -> None:
    return None


CRITERIA: dict[str, Callable[[Task, How], nn.Module | None]] = {
    "affinity": _affinity,
    "binary": _binary,
    "semantic": _semantic,
    "instance": _of_the_network,
}


def criterion(
    task: Task,
    *,
    loss: PerTask[str] = "BCELoss",
    size_average: bool = False,
    margin0: PerTask[float] = 0.0,
    margin1: PerTask[float] = 0.0,
    inverse: bool = False,
    class_balancing: PerTask[bool] = False,
    default_aux: bool = False,
) -> nn.Module | None:
    """Return the criterion of a task, which maps (logits, target, mask) to (loss, count).

    Return None for a task whose losses the network must compute itself.

    `loss`, the margins and `class_balancing` take one value, with the same meaning as in the public DeepEM, or one
    value per task: ``{"all": 0.1, "mit": 0.2}``, where "all" is the default for the other tasks.

    Args:
        task: A chosen row, with its edges filled in.
        loss: Name of the voxel-wise criterion of affinities. Other kinds use cross-entropy, unless a loss is given for
            the task by name.
        size_average: Return the mean over the voxels with mask > 0 instead of the sum.
        margin0: See BCELoss and MSELoss. Semantic tasks have no margins.
        margin1: See BCELoss and MSELoss.
        inverse: Margins smooth the labels, see BCELoss.
        class_balancing: See AffinityLoss and SemanticLoss. Binary tasks are balanced only if given by name, see
            BalancedLoss.
        default_aux: Use no margins for tasks other than affinities.
    """
    given = {"loss": loss, "margin0": margin0, "margin1": margin1, "class_balancing": class_balancing}
    named = frozenset(name for name, value in given.items() if isinstance(value, Mapping) and task.flag in value)
    own: dict[str, Any] = {name: _for(task, value, DEFAULTS[name]) for name, value in given.items()}
    if own["loss"] not in LOSSES:
        raise InputError("loss", own["loss"], f"one of {', '.join(LOSSES)}")
    if task.kind not in CRITERIA:
        raise ValueError(f"no criterion for tasks of kind {task.kind!r}")
    how = How(size_average=size_average, inverse=inverse, default_aux=default_aux, named=named, **own)
    return CRITERIA[task.kind](task, how)


def _for(task: Task, value: PerTask[T], default: T) -> T:
    """Return the value of a setting for a task."""
    return value.get(task.flag, value.get("all", default)) if isinstance(value, Mapping) else value
