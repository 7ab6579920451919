"""What one optimiser step is made of: the criteria of the heads, their weighted sum, the optimiser."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

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
    """

    def __init__(self, tasks: Iterable[Task], weights: Mapping[str, float], how: Mapping[str, Any]) -> None:
        self.weights = {task.name: weights[task.flag] for task in tasks}
        self.criteria: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
            task.name: criterion(task, **how) for task in tasks
        }

    def parts(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Parts:
        """The loss and count of every head, unweighted."""
        return {
            name: measure(outputs[name], batch[name], batch[f"{name}_mask"]) for name, measure in self.criteria.items()
        }

    def total(self, parts: Parts) -> Tensor:
        """What is minimised: the sum of weight * loss over the heads."""
        return torch.stack([self.weights[name] * loss for name, (loss, _) in parts.items()]).sum()


def optimizer(name: str, parameters: Iterable[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """An optimiser of torch.optim by name, given those of the settings that it takes.

    Raises:
        InputError: there is no optimiser of that name.
    """
    made = getattr(torch.optim, name, None)
    if not (inspect.isclass(made) and issubclass(made, torch.optim.Optimizer) and made is not torch.optim.Optimizer):
        known = [n for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, torch.optim.Optimizer)]
        raise InputError("--optim", name, f"one of {', '.join(sorted(set(known) - {'Optimizer'}))}")
    taken = inspect.signature(made).parameters
    return made(parameters, **{key: value for key, value in settings.items() if key in taken})
