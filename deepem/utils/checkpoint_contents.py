"""Validate the contents of a checkpoint before they are used: a readable file may still hold wrong values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from deepem.utils.errors import InputError

SETTINGS = ("lr", "betas", "momentum", "eps", "weight_decay")
"""Names of an optimiser's state entries, which identify the type of optimiser."""

EXTRA = "_extra_state"
"""Suffix of the state dict entries in which modules store values other than tensors."""


def check(state: Mapping[Any, Any], where: object) -> None:
    """Refuse a checkpoint whose entries have other types than those a run writes.

    Unknown entries are ignored.

    Raises:
        InputError: an entry is wrong; the error names the first one and what it should be.
    """
    for name in state:
        if not isinstance(name, str):
            raise InputError(where, f"an entry named {name!r}", "names that are text")
    for name in ("state_dict", "ema"):
        if state.get(name) is not None:
            _check_weights(name, state[name], where)
    if state.get("ema") is not None and state.get("state_dict") is not None:
        _check_average(state["ema"], state["state_dict"], where)
    for name, (fits, wants) in ENTRIES.items():
        if state.get(name) is not None and not fits(state[name]):
            raise InputError(where, f"{name} {_short(state[name])}", wants)


def _check_weights(name: str, weights: object, where: object) -> None:
    import torch

    if not isinstance(weights, Mapping) or not weights:
        raise InputError(where, f"{name} {_short(weights)}", "tensors by name")
    for key, value in weights.items():
        if not isinstance(key, str):
            raise InputError(where, f"{name} with an entry named {key!r}", "names that are text")
        if not isinstance(value, torch.Tensor) and not key.endswith(EXTRA):
            raise InputError(where, f"{name}[{key}] {_short(value)}", "a tensor")


def _check_average(average: Mapping[str, Any], trained: Mapping[str, Any], where: object) -> None:
    """Refuse an average that does not belong to the trained weights: they have the same entries."""
    for key in sorted({*average, *trained}):
        shapes = [tuple(getattr(held.get(key), "shape", ())) if key in held else "none" for held in (average, trained)]
        if shapes[0] != shapes[1]:
            got = f"ema of other weights than state_dict ({key}: shape {shapes[0]} and {shapes[1]})"
            raise InputError(where, got, "the average of the trained weights")


def require_finite(weights: Mapping[str, Any], where: object) -> None:
    """Refuse weights that are not finite, since the network's outputs would not be finite either.

    Raises:
        InputError: an entry contains a NaN or an infinity; the error names the entry.
    """
    import torch

    for key, value in weights.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
            wants = "finite numbers: take an earlier checkpoint"
            raise InputError(where, f"weights that are not finite ({key})", wants)


def check_optimiser(saved: Any, own: Any, where: object) -> None:
    """Refuse an optimiser state that does not fit the parameters; torch would load it and crash in the next step.

    Args:
        saved: The saved state dict.
        own: The optimiser into which it is to be loaded.
        where: The name to use in errors.

    Raises:
        InputError: the groups, the parameters or the shapes of the moments differ.
    """
    import torch

    wants = "the state of the same optimiser, or --pretrain to take the weights alone"
    groups = saved.get("param_groups") if isinstance(saved, Mapping) else None
    held = saved.get("state") if isinstance(saved, Mapping) else None
    if not isinstance(groups, list) or not isinstance(held, Mapping) or not all(_is_group(group) for group in groups):
        raise InputError(where, "an optimizer without state and param_groups", wants)
    sizes, mine = [len(group["params"]) for group in groups], [len(group["params"]) for group in own.param_groups]
    if sizes != mine:
        raise InputError(where, f"an optimizer of {sizes} parameters by group where the network has {mine}", wants)
    for group, ours in zip(groups, own.param_groups, strict=True):
        if lacking := [name for name in SETTINGS if name in ours and name not in group]:
            raise InputError(where, f"an optimizer without {lacking[0]}", wants)
        for number, parameter in zip(group["params"], ours["params"], strict=True):
            entries = held.get(number, {})
            if not isinstance(entries, Mapping):
                raise InputError(where, f"state {number} of the optimizer {_short(entries)}", wants)
            for name, value in entries.items():
                if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameter.shape:
                    got = f"{name} {number} of the optimizer with shape {tuple(value.shape)}"
                    raise InputError(where, got, f"{tuple(parameter.shape)}, as the parameter has; {wants}")


def _is_group(group: object) -> bool:
    return isinstance(group, Mapping) and isinstance(group.get("params"), list)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_dict(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_options(value: object) -> bool:
    return isinstance(value, Mapping) and _is_dict(value) and all(
        value.get(name) is None or fits(value[name]) for name, fits in OPTIONS.items()
    )  # fmt: skip


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_size(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(_is_count(n) and n > 0 for n in value)


def _are_shapes(value: object) -> bool:
    return _is_dict(value) and all(
        isinstance(shape, (list, tuple)) and len(shape) == 4 and all(map(_is_count, shape))
        for shape in value.values()  # type: ignore[attr-defined]
    )


def _is_spec(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(value) and all(map(_are_shapes, value))


def _are_pairs(value: object) -> bool:
    return _is_dict(value) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and all(isinstance(n, (int, float)) for n in pair)
        for pair in value.values()  # type: ignore[attr-defined]
    )


def _are_counts(value: object) -> bool:
    return _is_dict(value) and all(map(_is_count, value.values()))  # type: ignore[attr-defined]


OPTIONS: dict[str, Callable[[object], bool]] = {
    "model": _is_text,
    "backbone": _is_text,
    **dict.fromkeys(("fov", "inputsz", "outputsz"), _is_size),
}
"""Options that other programs read -> function that tells whether a value has the right type."""

ENTRIES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "iter": (_is_count, "the number of steps done, 0 or more"),
    "options": (_is_options, "options by flag: a model that is text, sizes of three numbers"),
    "spec": (_is_spec, "the shapes (C, Z, Y, X) of input and outputs by name"),
    "channels": (_is_count, "the number of channels of the image"),
    "tasks": (lambda value: isinstance(value, (list, tuple)) and all(map(_is_dict, value)), "rows of tasks"),
    "averages": (_are_pairs, "a sum and a count by name"),
    "drawn": (_are_counts, "how often each volume was drawn"),
    "skipped": (_is_count, "the number of steps that were skipped"),
    "scaler": (_is_dict, "the state of a gradient scaler"),
    "provenance": (_is_dict, "facts by name"),
}
"""Entry of a checkpoint -> (function that tells whether a value is valid, description of a valid value)."""


def _short(value: object) -> str:
    """Describe a value in a few words."""
    if isinstance(value, (int, float, str, bool, type(None))):
        return f"= {value!r}"[:60]
    if isinstance(value, (Mapping, list, tuple)) and not value:
        return "empty"
    told = repr(value)
    return f"= {told}" if len(told) < 40 else f"of type {type(value).__name__}"
