"""Wrap a network for the scan: maps input patches to probabilities of output patches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from deepem.scan.kinds import Activate, sigmoid
from deepem.utils.crop import centre_slices
from deepem.utils.errors import InputError, warn
from deepem.utils.exit_codes import no_exit
from deepem.utils.geometry import Box, Vec3

Model = Callable[[torch.Tensor], Any]
"""(N, C, Z, Y, X) float32 in [0, 1] -> {name: logits (N, C, Z, Y, X)}."""


class Network:
    """Calls a model and converts its logits to probabilities, in buffers that every call reuses.

    Args:
        model: Returns the output patch, or a larger patch from which the output patch is cropped: the whole input
            patch, or a patch of the size `gives`.
        output: Size of the output patch.
        front: Voxels of the input patch in front of the output patch.
        temperature: Logits are divided by max(temperature, 1).
        amp: Run the model in mixed precision (bfloat16). The probabilities are always float32.
        keep: The outputs to keep, with their numbers of channels (None: all). A module in train mode may return
            auxiliary outputs as well.
        gives: Size of the model's output if it is neither the output patch nor the whole input patch. It shares its
            centre voxel with the input patch.
        activations: Output name -> function that converts logits to probabilities; by default a sigmoid.
        before: Voxels of the input patch in front of the model's output if the two do not share their centre voxel.
        factor: (z, y, x) output voxels per input voxel of the model. Patches are given in output voxels.
        drop: The outputs to leave out, such as lists of objects.
    """

    def __init__(
        self,
        model: Model,
        output: Vec3,
        front: Vec3,
        temperature: float | None = None,
        amp: bool = False,
        keep: Mapping[str, int] | None = None,
        gives: Vec3 | None = None,
        activations: Mapping[str, Activate] | None = None,
        before: Vec3 | None = None,
        factor: Vec3 = (1, 1, 1),
        drop: Collection[str] = (),
    ) -> None:
        self.model, self.output, self.front, self.amp = model, output, front, amp
        self.keep, self.gives, self.activations = keep, gives or output, activations or {}
        self.temperature = max(temperature or 1.0, 1.0)
        self.before, self.factor, self.drop = before, factor, drop
        if names := of_each_patch(model):
            warn(f"model: {names} by the statistics of each patch: values depend on what else is in the patch")
        self._buffers: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def __call__(self, patches: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the probabilities {name: (N, C, Z, Y, X) float32} of a batch, valid until the next call."""
        z, y, x = self.factor
        coarse = patches if self.factor == (1, 1, 1) else patches[..., ::z, ::y, ::x].contiguous()
        with torch.autocast(patches.device.type, torch.bfloat16, enabled=self.amp), no_exit("model"):
            outputs = self.model(coarse)
        require_outputs(outputs, len(patches), self.keep, self.drop)
        kept = [name for name in outputs if (self.keep is None or name in self.keep) and name not in self.drop]
        return {name: self._probabilities(name, outputs[name], patches) for name in kept}

    def channels(self, patches: torch.Tensor) -> dict[str, int]:
        """Return the name and number of channels of each output, found by a trial on a batch."""
        return {name: int(value.shape[1]) for name, value in self(patches).items()}

    def _probabilities(self, name: str, logits: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        size, patch = tuple(logits.shape[2:]), tuple(patches.shape[2:])
        if size != self.output:
            if size not in (self.gives, patch):
                raise InputError(
                    f"model output {name}", f"size {size}", f"the output size {self.gives}, or the whole patch {patch}"
                )
            centred = [s.start for s in centre_slices(patch, size)]
            before = self.before if self.before is not None and size == self.gives else centred
            begin = (f - b for f, b in zip(self.front, before, strict=True))
            z, y, x = Box.of_size(begin, self.output).slices()
            logits = logits[..., z, y, x]
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != logits.shape:
            buffer = self._buffers[name] = torch.empty(logits.shape, device=logits.device)
        return self.activations.get(name, sigmoid)(logits, self.temperature, buffer)


def require_outputs(outputs: Any, samples: int, keep: Mapping[str, int] | None, drop: Collection[str] = ()) -> None:
    """Refuse what a model returned unless it has logits (N, C, Z, Y, X) for every output to keep.

    Args:
        outputs: What the model returned.
        samples: N, the number of patches that the model was given.
        keep: Output name -> number of channels; None accepts any outputs.
        drop: The outputs that may be anything.

    Raises:
        InputError: the first problem found.
    """
    if not isinstance(outputs, Mapping) or not outputs or not all(isinstance(name, str) for name in outputs):
        got = (
            f"a dict of {', '.join(map(str, outputs)) or 'nothing'}"
            if isinstance(outputs, Mapping)
            else (f"an output of type {type(outputs).__name__}")
        )
        raise InputError("model", got, "a dict of name -> logits")
    for name in (name for name in (outputs if keep is None else keep) if name not in drop):
        if name not in outputs:
            raise InputError("model", f"a dict of {', '.join(outputs)}", f"the output {name} in it")
        value, channels = outputs[name], "C" if keep is None else keep[name]
        wants = f"a tensor of floats ({samples}, {channels}, Z, Y, X)"
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            kind = f"a tensor of {value.dtype}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
            raise InputError(f"model output {name}", kind, wants)
        if value.ndim != 5 or len(value) != samples or value.shape[1] != (keep or {}).get(name, value.shape[1]):
            raise InputError(f"model output {name}", f"a tensor {tuple(value.shape)}", wants)


def of_each_patch(model: object) -> str:
    """Return the types of a model's layers that normalise by the statistics of their input even in eval mode."""
    kinds = (nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
    parts = model.modules() if isinstance(model, nn.Module) else ()
    own = [part for part in parts if isinstance(part, kinds) and not getattr(part, "track_running_stats", False)]
    return ", ".join(dict.fromkeys(type(part).__name__ for part in own))


def device_of(model: object) -> torch.device:
    """Return the device of a model's parameters; the CPU if it has none."""
    tensors: list[torch.Tensor] = []
    if isinstance(model, nn.Module):
        tensors = [*list(model.parameters())[:1], *list(model.buffers())[:1]]
    return tensors[0].device if tensors else torch.device("cpu")


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Put a module into eval mode within the block, then restore the mode of each of its submodules."""
    parts = [(part, part.training) for part in model.modules()] if isinstance(model, nn.Module) else []
    for part, _ in parts[:1]:
        part.eval()
    try:
        yield
    finally:
        for part, training in parts:
            part.training = training
