"""What one optimiser step is made of: the criteria of the heads, their weighted sum, the optimiser."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepem.loss import criterion
from deepem.tasks import Task
from deepem.utils.errors import InputError

UNFIT = ("LBFGS", "SparseAdam", "Muon")
"""Optimisers of torch that take another loop, other gradients or other parameters than there are here."""

Parts = dict[str, tuple[Tensor, Tensor]]
"""(loss, count) by output name."""


class Objective:
    """The losses of a network's outputs and their weighted sum.

    Args:
        tasks: The chosen rows.
        weights: Flag -> weight.
        how: Keyword arguments of `deepem.loss.criterion`.
        auxiliary: Auxiliary outputs `head@which` -> weight, relative to their head's.
        own: The network gives its own losses: those named after a head have its weight, others the weight 1.

    Attributes:
        average: Losses are means over voxels, not sums.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        weights: Mapping[str, float],
        how: Mapping[str, Any],
        auxiliary: Mapping[str, float] | None = None,
        own: bool = False,
    ) -> None:
        self.own = own
        self.average = bool(how.get("size_average"))
        self.channels = {task.name: task.channels for task in tasks}
        self.weights = {task.name: weights[task.flag] for task in tasks}
        self.criteria: dict[str, Any] = {
            task.name: criterion(task, **{**how, "size_average": False}) for task in (() if own else tasks)
        }
        self.weights |= {name: self.weights[_head(name)] * factor for name, factor in (auxiliary or {}).items()}

    def parts(
        self,
        outputs: Mapping[str, Any],
        batch: Mapping[str, Tensor],
        classes: Mapping[str, Tensor] | None = None,
    ) -> Parts:
        """The summed loss and the count of every head, and of every auxiliary output, unweighted.

        Args:
            outputs: Of the network; if the network gives its own losses, those.
            batch: What they are of.
            classes: By head, from `classes`: where this is a part of a batch, those of all of it.
        """
        if self.own:
            return {name: (loss, torch.as_tensor(count, device=loss.device)) for name, (loss, count) in outputs.items()}
        found = {}
        for name in (name for name in self.weights if name in outputs or name in self.criteria):
            head = _head(name)
            more = (classes[head],) if classes and head in classes else ()
            found[name] = self.criteria[head](outputs[name], batch[head], batch[f"{head}_mask"], *more)
        return found

    def classes(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How much there is of each class, by head, for the losses that balance classes."""
        return {
            name: measure.classes(batch[name], batch[f"{name}_mask"])
            for name, measure in self.criteria.items()
            if getattr(measure, "class_balancing", False)
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
            over = count if counts is None else counts[name if self.own else _head(name)]
            terms.append(self._weight(name) * (loss / over.clamp(min=1) if self.average else loss))
        return torch.stack(terms).sum()

    def mean(self, values: Mapping[str, float]) -> float:
        """The weighted sum of averaged losses of the heads."""
        return sum(self._weight(name) * value for name, value in values.items() if self.own or name in self.criteria)

    def _weight(self, name: str) -> float:
        return self.weights.get(name, 1.0) if self.own else self.weights[name]


class WithLosses(nn.Module):
    """A network that gives its own losses, called like any other, for what is put around networks.

    Its ``losses(batch)`` gives {name: (loss, count)}: a loss that is a sum, and what a mean of it is taken over.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Mapping[str, Tensor]) -> Parts:
        """The losses of a batch."""
        found: Parts = self.network.losses(batch)  # type: ignore[operator]
        return found


def has_losses(network: nn.Module) -> bool:
    """Whether a network gives its own losses, which then take the place of those of its outputs."""
    return callable(getattr(network, "losses", None))


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
    if not (inspect.isclass(made) and issubclass(made, torch.optim.Optimizer) and name not in ("Optimizer", *UNFIT)):
        known = [n for n, c in vars(torch.optim).items() if inspect.isclass(c) and issubclass(c, torch.optim.Optimizer)]
        raise InputError("--optim", name, f"one of {', '.join(sorted(set(known) - {'Optimizer', *UNFIT}))}")
    taken = inspect.signature(made).parameters
    if "fused" in taken:
        settings["fused"] = True
    fits = {key: value for key, value in settings.items() if key in taken and _is_like(value, taken[key].default)}
    try:
        found: torch.optim.Optimizer = made([dict(group) for group in groups], **fits)
    except ValueError as error:
        raise InputError("--optim", name, f"settings that it takes: {error}") from error
    if found.defaults.get("fused") and found.defaults.get("momentum"):
        for parameter in (p for group in found.param_groups for p in group["params"]):
            # torch 2.13 takes what lies in memory for the momentum if the first gradient is not finite
            found.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return found


def _is_like(value: Any, default: Any) -> bool:
    """Whether a setting is what an optimiser means by its name: the eps of one of them is a pair."""
    return isinstance(value, (tuple, list)) == isinstance(default, (tuple, list))


def in_groups(
    saved: Mapping[str, Any], own: torch.optim.Optimizer, order: Sequence[Tensor], where: object
) -> dict[str, Any]:
    """The state of an optimiser of one group, for one whose parameters lie in groups of its own.

    Args:
        saved: A state dict, its parameters those of a network in their order.
        own: The optimiser to load it into, whose settings stay.
        order: The network's parameters in their order.
        where: What to name in an error.

    Raises:
        InputError: the state of another kind of optimiser, or of other parameters.
    """
    mine = own.state_dict()
    wants = "the state of the same optimiser, or --pretrain to take the weights alone"
    theirs = [number for group in saved["param_groups"] for number in group["params"]]
    if len(theirs) != len(order):
        raise InputError(where, f"an optimiser of {len(theirs)} parameters where the network has {len(order)}", wants)
    for name in ("betas", "momentum"):
        if any((name in group) != (name in mine["param_groups"][0]) for group in saved["param_groups"]):
            raise InputError(where, f"the state of another optimiser than {type(own).__name__}", wants)
    number_of = {id(parameter): number for parameter, number in zip(order, theirs, strict=True)}
    state = {}
    for group, numbered in zip(own.param_groups, mine["param_groups"], strict=True):
        for parameter, number in zip(group["params"], numbered["params"], strict=True):
            if (held := saved["state"].get(number_of[id(parameter)])) is not None:
                state[number] = held
    return {"state": state, "param_groups": mine["param_groups"]}
