"""What one optimiser step is made of: the criteria of the heads, their weighted sum, the optimiser."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deepem.loss import criterion
from deepem.tasks import Task
from deepem.utils.errors import InputError

Parts = dict[str, tuple[Tensor, Tensor]]
"""(loss, count) by output name."""


class Objective:
    """The losses of a network's outputs and their weighted sum.

    Args:
        tasks: The chosen rows.
        weights: Flag -> weight.
        how: Keyword arguments of `deepem.loss.criterion`.
        auxiliary: Auxiliary outputs `head@which` -> weight, relative to their head's.

    Attributes:
        average: Losses are means over voxels, not sums.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        weights: Mapping[str, float],
        how: Mapping[str, Any],
        auxiliary: Mapping[str, float] | None = None,
    ) -> None:
        self.average = bool(how.get("size_average"))
        self.channels = {task.name: task.channels for task in tasks}
        self.weights = {task.name: weights[task.flag] for task in tasks}
        self.criteria: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
            task.name: criterion(task, **{**how, "size_average": False}) for task in tasks
        }
        self.weights |= {name: self.weights[_head(name)] * factor for name, factor in (auxiliary or {}).items()}

    def parts(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Parts:
        """The summed loss and the count of every head, and of every auxiliary output, unweighted."""
        names = [name for name in self.weights if name in outputs or name in self.criteria]
        return {
            name: self.criteria[_head(name)](outputs[name], batch[_head(name)], batch[f"{_head(name)}_mask"])
            for name in names
        }

    @torch.no_grad()
    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The count of every head, which depends on no output."""
        found = {}
        for name, measure in self.criteria.items():
            target = batch[name]
            shape = (len(target), self.channels[name], *target.shape[2:])
            found[name] = measure(batch["input"].new_zeros(1).expand(shape), target, batch[f"{name}_mask"])[1]
        return found

    def total(self, parts: Parts, counts: Mapping[str, Tensor] | None = None) -> Tensor:
        """What is minimised: the sum of weight * loss over the heads.

        Args:
            parts: From `parts`.
            counts: By head, what means are taken over: where these parts are some of a batch, all of it.
        """
        terms = []
        for name, (loss, count) in parts.items():
            over = count if counts is None else counts[_head(name)]
            terms.append(self.weights[name] * (loss / over.clamp(min=1) if self.average else loss))
        return torch.stack(terms).sum()

    def mean(self, values: Mapping[str, float]) -> float:
        """The weighted sum of averaged losses of the heads."""
        return sum(self.weights[name] * value for name, value in values.items() if name in self.criteria)


def _head(name: str) -> str:
    """The head of an output, auxiliary or not."""
    return name.partition("@")[0]


def added(some: Parts, more: Parts) -> Parts:
    """Losses and counts of two parts of a batch together, cut off from the graph."""
    detached = {name: (loss.detach(), torch.as_tensor(count)) for name, (loss, count) in more.items()}
    return {
        name: (some[name][0] + loss, some[name][1] + count) if name in some else (loss, count)
        for name, (loss, count) in detached.items()
    }


def optimizer(name: str, groups: Sequence[Mapping[str, Any]], **settings: Any) -> torch.optim.Optimizer:
    """An optimiser of torch.optim by name, given those of the settings that it takes, fused where it can be.

    Raises:
        InputError: there is no optimiser of that name.
    """
    made = getattr(torch.optim, name, None)
    if not (inspect.isclass(made) and issubclass(made, torch.optim.Optimizer) and made is not torch.optim.Optimizer):
        known = [n for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, torch.optim.Optimizer)]
        raise InputError("--optim", name, f"one of {', '.join(sorted(set(known) - {'Optimizer'}))}")
    taken = inspect.signature(made).parameters
    if "fused" in taken:
        settings["fused"] = True
    return made([dict(group) for group in groups], **{key: value for key, value in settings.items() if key in taken})
