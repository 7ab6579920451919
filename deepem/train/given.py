"""Validates what plug-ins return, once, on the first batch and before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from deepem.utils.errors import InputError, reason

Shapes = Mapping[str, Sequence[int]]
"""Name -> shape (C, Z, Y, X)."""


def told(value: object) -> str:
    """Describe a value in a few words, for errors."""
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    return "None" if value is None else f"a {type(value).__name__}"


def require_batch(batch: Any, inputs: Shapes, outputs: Shapes, where: str, samples: int | None = None) -> None:
    """Refuse a batch that lacks an array, or has one of the wrong type or shape.

    Args:
        batch: The batch from a sampler, or from a modifier.
        inputs: The network's inputs.
        outputs: The network's outputs. Each needs a mask, and a target with one channel or as many channels as the
            output.
        where: The plug-in, named in errors.
        samples: Number of samples in the batch. None skips the size checks, for batches from a modifier, which may
            crop.

    Raises:
        InputError: the first problem found.
    """
    wanted = [*inputs, *(name for head in outputs for name in (head, f"{head}_mask"))]
    if not isinstance(batch, Mapping):
        raise InputError(where, told(batch), f"a dict of {', '.join(wanted)}")
    for name in wanted:
        if name not in batch:
            raise InputError(where, told(batch), f"{name} in it: {', '.join(wanted)}")
        shape = inputs.get(name) or outputs[name.removesuffix("_mask")]
        _require_array(batch[name], (where, name), shape, samples, any_channels=name not in inputs)


def _require_array(
    value: object, where: tuple[str, str], shape: Sequence[int], samples: int | None, *, any_channels: bool
) -> None:
    place = f"{where[0]}: {where[1]}"
    if not isinstance(value, Tensor):
        raise InputError(place, told(value), "a tensor")
    if not (value.is_floating_point() or value.dtype in (torch.uint8, torch.int32, torch.int64, torch.bool)):
        raise InputError(place, told(value), "float32, uint8, or for ids int32 or int64")
    channels = "C" if any_channels else str(shape[0])
    wants = f"{samples or 'N'} x ({channels}, {', '.join(map(str, shape[1:]))})"
    fits = value.ndim == 5 and (any_channels or value.shape[1] == shape[0])
    if not fits or (samples is not None and (len(value) != samples or tuple(value.shape[2:]) != tuple(shape[1:]))):
        raise InputError(place, told(value), wants)


def require_logits(logits: Any, outputs: Shapes, batch: Mapping[str, Tensor], where: str) -> None:
    """Refuse a model's result unless it has logits (N, C, Z, Y, X) for every head, of the size of the targets.

    Args:
        logits: What the model returned.
        outputs: The outputs that the model must return.
        batch: The batch that the model was called with, targets included.
        where: The model, named in errors.

    Raises:
        InputError: the first problem found.
    """
    if not isinstance(logits, Mapping):
        raise InputError(where, f"{told(logits)} from its forward", f"a dict of {', '.join(outputs)}")
    for name, shape in outputs.items():
        if name not in logits:
            raise InputError(where, f"{told(logits)} from its forward", f"the head {name} in it")
        value = logits[name]
        wanted = (len(batch[name]), shape[0], *batch[name].shape[2:])
        wants = f"a tensor of float32 {wanted} with a gradient"
        if not isinstance(value, Tensor) or not value.is_floating_point() or tuple(value.shape) != wanted:
            raise InputError(where, f"{name}: {told(value)} from its forward", wants)
        if not value.requires_grad:
            raise InputError(where, f"{name}: a tensor without a gradient from its forward", wants)


def require_losses(losses: Any, where: str) -> None:
    """Refuse the losses of a model that computes its own, unless they are ``{name: (loss, count)}``.

    Raises:
        InputError: the losses have another form.
    """
    wants = "{name: (loss, count)}, the loss a scalar tensor with a gradient"
    if not isinstance(losses, Mapping):
        raise InputError(where, f"{told(losses)} from its losses", wants)
    for name, pair in losses.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], Tensor) or pair[0].ndim:
            raise InputError(where, f"{name}: {told(pair)} from its losses", wants)


@contextmanager
def first_pass(compiled: bool) -> Iterator[None]:
    """Wrap the first forward pass, so that a failure caused by sizes or by this machine is reported as bad input.

    Raises:
        InputError: a norm has only a single value to normalise, or the network cannot be compiled here.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    try:
        yield
    except (TorchDynamoException, InductorError) as error:
        wants = "a compiler such as g++ and a network it takes, or no --compile"
        raise InputError("--compile", reason(error), wants) from error
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            wants = "more values for batch norm: a larger patch, a larger batch, or --group 4"
            raise InputError("--fov, --batch_size", str(error).split(", got")[0], wants) from error
        raise
    except RuntimeError as error:
        if compiled and "ompiler" in str(error):
            raise InputError("--compile", reason(error), "a compiler such as g++, or no --compile") from error
        raise
