"""Which criterion a task is trained with, by its kind.

CRITERIA has one entry per kind of `deepem.tasks`: (row, How) -> criterion. A criterion is called with (logits, target,
mask) and gives (loss, count), see `deepem.loss.voxel`. One that balances classes has the attribute `class_balancing`
and a method `classes(target, mask)`, whose sum over the parts of a batch it takes as a fourth argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from deepem.loss.affinity import AffinityLoss
from deepem.loss.semantic import SemanticLoss
from deepem.loss.voxel import BCELoss, MSELoss
from deepem.tasks import Task
from deepem.utils.errors import InputError

LOSSES: dict[str, type[nn.Module]] = {"BCELoss": BCELoss, "MSELoss": MSELoss}


@dataclass(frozen=True)
class How:
    """What the command line says of criteria; see `criterion`."""

    loss: str
    size_average: bool
    margin0: float
    margin1: float
    inverse: bool
    class_balancing: bool
    default_aux: bool


def _affinity(task: Task, how: How) -> nn.Module:
    voxel = LOSSES[how.loss](size_average=False, margin0=how.margin0, margin1=how.margin1, inverse=how.inverse)
    return AffinityLoss(task.edges, voxel, how.size_average, how.class_balancing)


def _binary(task: Task, how: How) -> nn.Module:
    if how.default_aux:
        return BCELoss(how.size_average, 0, 0, False)
    return BCELoss(how.size_average, how.margin0, how.margin1, how.inverse)


def _semantic(task: Task, how: How) -> nn.Module:
    return SemanticLoss(task.channels, task.class_weights, how.size_average, how.class_balancing)


CRITERIA: dict[str, Callable[[Task, How], nn.Module]] = {
    "affinity": _affinity,
    "binary": _binary,
    "semantic": _semantic,
}


def criterion(
    task: Task,
    *,
    loss: str = "BCELoss",
    size_average: bool = False,
    margin0: float = 0,
    margin1: float = 0,
    inverse: bool = False,
    class_balancing: bool = False,
    default_aux: bool = False,
) -> nn.Module:
    """The criterion of a task: called with (logits, target, mask) it gives (loss, count).

    Args:
        task: A chosen row, its edges filled in.
        loss: Name of the voxel-wise criterion of affinities; every other kind has cross-entropy.
        size_average: Mean over the voxels with mask > 0, in place of the sum.
        margin0: See BCELoss and MSELoss; classes that exclude each other have no margins.
        margin1: See BCELoss and MSELoss.
        inverse: Margins smooth the labels, see BCELoss.
        class_balancing: See AffinityLoss and SemanticLoss; binary tasks have none.
        default_aux: No margins for tasks other than affinities.
    """
    if loss not in LOSSES:
        raise InputError("loss", loss, f"one of {', '.join(LOSSES)}")
    if task.kind not in CRITERIA:
        raise ValueError(f"no criterion for tasks of kind {task.kind!r}")
    return CRITERIA[task.kind](task, How(loss, size_average, margin0, margin1, inverse, class_balancing, default_aux))
