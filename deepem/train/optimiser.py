"""The optimiser: any of torch.optim by name, and its state from other programs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deepem.utils.errors import InputError

UNFIT = ("LBFGS", "SparseAdam", "Muon")
"""Optimisers of torch that need another loop, other gradients or other parameters than there are here."""


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


def regrouped(
    saved: Mapping[str, Any], before: Sequence[Sequence[str]], own: torch.optim.Optimizer, names: Mapping[int, str]
) -> dict[str, Any]:
    """The state of an optimiser for one whose parameters lie in other groups: after a change of --freeze, say.

    Parameters that were not trained before begin without a state.

    Args:
        saved: A state dict.
        before: The names of the parameters in each of its groups.
        own: The optimiser to load it into, whose settings stay.
        names: The name of each parameter by its id.
    """
    mine = own.state_dict()
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    number_of = dict(zip((name for group in before for name in group), numbers, strict=False))
    state = {}
    for group, numbered in zip(own.param_groups, mine["param_groups"], strict=True):
        for parameter, number in zip(group["params"], numbered["params"], strict=True):
            held = saved["state"].get(number_of.get(names[id(parameter)]))
            if held is not None:
                state[number] = held
    return {"state": state, "param_groups": mine["param_groups"]}


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
