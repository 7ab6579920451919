"""Which criterion a task is trained with, by its kind."""

from __future__ import annotations

from torch import nn

from deepem.loss.affinity import AffinityLoss
from deepem.loss.voxel import BCELoss, MSELoss
from deepem.tasks import Task
from deepem.utils.errors import InputError

LOSSES: dict[str, type[nn.Module]] = {"BCELoss": BCELoss, "MSELoss": MSELoss}


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
        loss: Name of the voxel-wise criterion of affinities; every other kind has binary cross-entropy.
        size_average: Mean over the voxels with mask > 0, in place of the sum.
        margin0: See BCELoss and MSELoss.
        margin1: See BCELoss and MSELoss.
        inverse: Margins smooth the labels, see BCELoss.
        class_balancing: See AffinityLoss; the other kinds have none.
        default_aux: No margins for tasks other than affinities.
    """
    if loss not in LOSSES:
        raise InputError("--loss", loss, f"one of {', '.join(LOSSES)}")
    if task.kind == "affinity":
        voxel = LOSSES[loss](size_average=False, margin0=margin0, margin1=margin1, inverse=inverse)
        return AffinityLoss(task.edges, voxel, size_average, class_balancing)
    if task.kind == "binary":
        if default_aux:
            margin0, margin1, inverse = 0, 0, False
        return BCELoss(size_average, margin0, margin1, inverse)
    raise ValueError(f"no criterion for tasks of kind {task.kind!r}")
