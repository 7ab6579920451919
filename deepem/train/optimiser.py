"""Creates any torch.optim optimiser by name, and converts optimiser states from other runs and programs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from deepem.utils.errors import InputError

UNFIT = ("LBFGS", "SparseAdam", "Muon")
"""torch.optim optimisers that this trainer cannot use: they need a closure, sparse gradients, or 2-D parameters."""


def optimizer(name: str, groups: Sequence[Mapping[str, Any]], **settings: Any) -> torch.optim.Optimizer:
    """Create a torch.optim optimiser by name, with the settings that it accepts, fused where possible.

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
            # torch 2.13 uses uninitialised memory as momentum if the first gradient is not finite
            found.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return found


def _is_like(value: Any, default: Any) -> bool:
    """Whether an optimiser uses a setting in the usual sense; one of them, for example, takes a pair as eps."""
    return isinstance(value, (tuple, list)) == isinstance(default, (tuple, list))


def regrouped(
    saved: Mapping[str, Any], before: Sequence[Sequence[str]], own: torch.optim.Optimizer, names: Mapping[int, str]
) -> dict[str, Any]:
    """Regroup the state of an optimiser when the parameter groups differ, for example after a change of --freeze.

    Parameters that were not trained before start without a state.

    Args:
        saved: The optimiser's state dict.
        before: The names of the parameters in each of its groups.
        own: The optimiser to load the state into. It keeps its settings.
        names: Parameter id -> name.
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
    """Convert the state of an optimiser with a single group for an optimiser with several groups.

    Args:
        saved: The state dict, with the parameters in the order of the network.
        own: The optimiser to load the state into. It keeps its settings.
        order: The network's parameters, in order.
        where: The name to use in errors.

    Raises:
        InputError: the state belongs to another kind of optimiser, or to other parameters.
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
