"""The training objective: a criterion for each head, and the weighted sum of their losses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from deepem.loss import criterion
from deepem.protocols import HasAuxiliary, HasLosses
from deepem.tasks import Task

Batch = dict[str, Tensor]
Losses = dict[str, tuple[Tensor, Tensor]]
"""Output name -> (summed loss, number of voxels)."""


@dataclass(frozen=True)
class Outputs:
    """The result of one forward pass.

    Attributes:
        logits: Output name -> (N, C, Z, Y, X).
        own: The losses that the network computed itself.
    """

    logits: Mapping[str, Tensor]
    own: Losses = field(default_factory=dict)


@dataclass(frozen=True)
class Totals:
    """Totals over the whole batch, for losses that are computed on a share of it.

    Attributes:
        counts: For each head, the number of voxels to average over; None if the share is the whole batch.
        classes: For each head, the amount of each class, for losses that balance classes.
    """

    counts: Mapping[str, Tensor] | None = None
    classes: Mapping[str, Tensor] = field(default_factory=dict)


class Objective:
    """Computes the losses of a network's outputs and their weighted sum.

    Args:
        tasks: The chosen tasks.
        weights: Task flag -> weight.
        how: Keyword arguments of `deepem.loss.criterion`.
        auxiliary: Auxiliary outputs ``head@which`` -> weight, relative to that of their head.
        own: Whether the network computes losses itself. A loss named after a head gets that head's weight. Any other
            loss gets the weight of the task without a criterion, or 1 if every task has a criterion.

    Attributes:
        average: Whether losses are means over voxels rather than sums.
        left_to_network: The tasks without a criterion.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        weights: Mapping[str, float],
        how: Mapping[str, Any],
        auxiliary: Mapping[str, float] | None = None,
        own: bool = False,
    ) -> None:
        tasks = tuple(tasks)
        self.own = own
        self.average = bool(how.get("size_average"))
        self.channels = {task.name: task.channels for task in tasks}
        self.weights = {task.name: weights[task.flag] for task in tasks}
        every: dict[str, Any] = {task.name: criterion(task, **{**how, "size_average": False}) for task in tasks}
        self.criteria = {name: made for name, made in every.items() if made is not None}
        self.left_to_network = [task for task in tasks if task.name not in self.criteria]
        self._other_weight = next((weights[task.flag] for task in self.left_to_network), 1.0)
        self.weights |= {name: self.weights[_head(name)] * factor for name, factor in (auxiliary or {}).items()}

    def losses(self, outputs: Outputs, batch: Mapping[str, Tensor], totals: Totals = Totals()) -> Losses:
        """Return the summed loss and the count of every head and auxiliary output, unweighted.

        Args:
            outputs: The network's outputs.
            batch: The batch that the outputs were computed from.
            totals: Totals over the whole batch, if this is a share of it.
        """
        own = outputs.own.items()
        found = {name: (loss, torch.as_tensor(count, device=loss.device)) for name, (loss, count) in own}
        expected = () if self.own else self.criteria
        for name in (n for n in self.weights if n not in found and (n in outputs.logits or n in expected)):
            head = _head(name)
            if head not in self.criteria:
                continue
            more = (totals.classes[head],) if head in totals.classes else ()
            found[name] = self.criteria[head](outputs.logits[name], batch[head], batch[f"{head}_mask"], *more)
        return found

    def weighted_sum(self, losses: Losses, counts: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the value to minimise: the sum of weight * loss over the heads.

        Args:
            losses: The result of `losses`.
            counts: By name, the counts to divide by; by default the counts of these losses.
        """
        terms = []
        for name, (loss, count) in losses.items():
            over = count if counts is None else counts.get(name, counts.get(_head(name), count))
            terms.append(self._weight(name) * (loss / over.clamp(min=1) if self.average else loss))
        return torch.stack(terms).sum()

    def mean(self, values: Mapping[str, float]) -> float:
        """Return the weighted sum of averaged losses, without the auxiliary outputs."""
        return sum(self._weight(name) * value for name, value in values.items() if self.own or name in self.criteria)

    def classes(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the amount of each class for each head, for losses that balance classes."""
        return {
            name: measure.classes(batch[name], batch[f"{name}_mask"])
            for name, measure in self.criteria.items()
            if getattr(measure, "class_balancing", False)
        }

    @torch.no_grad()
    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the count of every head, which does not depend on the network's outputs."""
        found = {}
        for name, measure in self.criteria.items():
            target = batch[name]
            shape = (len(target), self.channels[name], *target.shape[2:])
            found[name] = measure(batch["input"].new_zeros(1).expand(shape), target, batch[f"{name}_mask"])[1]
        return found

    def _weight(self, name: str) -> float:
        return self.weights.get(name, self._other_weight) if self.own else self.weights[name]


class WithLosses(nn.Module):
    """Wraps a network that computes its own losses, so that DDP and torch.compile see one forward pass.

    The network's ``losses(batch)`` returns ``{name: (loss, count)}``, where `loss` is a sum and `count` is the number
    to divide by for a mean. It may also return a pair of such a dict and the logits of its dense heads; the criteria of
    the tasks are then applied to these logits.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Losses, dict[str, Tensor]]:
        """Return the network's own losses, and the logits of its dense heads."""
        found: Any = self.network.losses(batch)  # type: ignore[operator]
        return found if isinstance(found, tuple) else (found, {})


def has_losses(network: nn.Module) -> bool:
    """Whether a network computes losses itself."""
    return isinstance(network, HasLosses)


def auxiliary_of(network: nn.Module) -> Mapping[str, float]:
    """Return the auxiliary outputs of a network with their weights, relative to the weight of their head."""
    return network.auxiliary if isinstance(network, HasAuxiliary) else {}


def _head(name: str) -> str:
    """Return the head that an output, auxiliary or not, belongs to."""
    return name.partition("@")[0]


def added(some: Losses, more: Losses) -> Losses:
    """Add the losses and counts of two shares of a batch, detached from the graph."""
    detached = {name: (loss.detach(), torch.as_tensor(count)) for name, (loss, count) in more.items()}
    return {
        name: (some[name][0] + loss, some[name][1] + count) if name in some else (loss, count)
        for name, (loss, count) in detached.items()
    }
