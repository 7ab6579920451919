"""From a model module to a network: its patch sizes, and the network itself."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deepem import tasks
from deepem.cli.plugins import PlugIn
from deepem.protocols import HasOutputSize
from deepem.tasks import Task
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

if TYPE_CHECKING:
    from torch import nn

Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True)
class PatchSizes:
    """The patches that go into a network and come out of it.

    Attributes:
        input: (z, y, x) voxels.
        output: (z, y, x) voxels, in the middle of the input.
        crop: Output / input for a model that has to crop to give this output, else None.
    """

    input: Vec3
    output: Vec3
    crop: tuple[float, float, float] | None = None


def crops(model: PlugIn) -> bool:
    """Whether a model can crop its output to a smaller patch."""
    return _takes(model, "cropsz") and bool(getattr(model.module, "crops", True))


def _takes(model: PlugIn, parameter: str) -> bool:
    return parameter in inspect.signature(model.module.create_model).parameters


def patch_sizes(model: PlugIn, inputsz: Vec3, outputsz: Vec3 | None) -> PatchSizes:
    """The patch sizes of a model.

    Args:
        model: The model and its flags.
        inputsz: The input patch.
        outputsz: The output patch asked for, or None for what the model gives.

    Raises:
        InputError: a patch that does not fit the network, or an output that it cannot give.
    """
    with model.calling():
        module: object = model.module
        gives: Vec3 = module.output_size(inputsz, **model.flags) if isinstance(module, HasOutputSize) else inputsz
    if outputsz is None or outputsz == gives:
        return PatchSizes(inputsz, gives)
    asked = _comma(outputsz)
    if not crops(model):
        raise InputError("--outputsz", asked, f"{_comma(gives)}, what the model gives for {_comma(inputsz)}")
    if any(o > g for o, g in zip(outputsz, gives, strict=True)):
        raise InputError("--outputsz", asked, f"at most {_comma(gives)}")
    if any(g % 2 == 0 and o % 2 for o, g in zip(outputsz, gives, strict=True)):
        raise InputError("--outputsz", asked, f"even sizes where {_comma(gives)} is even: it has no centre voxel")
    z, y, x = (o / i for o, i in zip(outputsz, inputsz, strict=True))
    return PatchSizes(inputsz, outputsz, (z, y, x))


def require_room_for_edges(chosen: Sequence[Task], output: Vec3) -> None:
    """Refuse edges that reach from one side of the output patch to the other.

    Raises:
        InputError: an edge as long as the patch or longer.
    """
    for edge in (edge for task in chosen for edge in task.edges):
        if any(abs(d) >= n for d, n in zip(edge, output, strict=True)):
            raise InputError("--edges", _comma(edge), f"edges shorter than the output patch, {_comma(output)}")


def specs(chosen: Sequence[Task], channels: int, sizes: PatchSizes) -> tuple[dict[str, Shape4], dict[str, Shape4]]:
    """The network's input and outputs: name -> (C, Z, Y, X)."""
    return {"input": (channels, *sizes.input)}, tasks.out_spec(chosen, sizes.output)


def create_network(
    model: PlugIn, chosen: Sequence[Task], channels: int, sizes: PatchSizes, *, seed: int | None = None
) -> nn.Module:
    """The network of a model module, on the CPU.

    Args:
        model: The model and its flags.
        chosen: The tasks; each has a head.
        channels: Channels of the image.
        sizes: From `patch_sizes`.
        seed: Decides the initial weights; None where a checkpoint replaces them.

    Raises:
        InputError: flags that the model cannot use.
    """
    import torch

    in_spec, out_spec = specs(chosen, channels, sizes)
    filled_in: dict[str, Any] = {"in_spec": in_spec, "out_spec": out_spec}
    if _takes(model, "cropsz"):
        filled_in["cropsz"] = sizes.crop
    if seed is not None:
        torch.manual_seed(seed)
    made: Any = model.create(**filled_in)
    if not isinstance(made, torch.nn.Module):
        got = "a class" if isinstance(made, type) else "None" if made is None else f"a {type(made).__name__}"
        raise InputError(model.where, f"{got} from create_model", "a torch.nn.Module")
    network: nn.Module = made
    return network


def _comma(size: Sequence[int]) -> str:
    return ",".join(map(str, size))
