"""From a model module to a network: its patch sizes, and the network itself."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deepem import tasks
from deepem.cli.plugins import PlugIn
from deepem.protocols import HasEvaluationSize, HasOutputSize, HasTiles
from deepem.tasks import Task
from deepem.utils.crop import centre_slices
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3, vec3

if TYPE_CHECKING:
    from torch import nn

Shape4 = tuple[int, int, int, int]


@dataclass(frozen=True)
class PatchSizes:
    """The patches that go into a network and come out of it.

    Attributes:
        input: (z, y, x) voxels.
        output: (z, y, x) voxels of the output, in the middle of the input.
        crop: Output / input for a model that has to crop to give this output, else None.
        factor: Voxels of the output per voxel of the input.
        tiling: Voxels of the output by which a patch may move so that the network gives each voxel the same value as
            before; None where values depend on the patch anyway.
        moved: Voxels by which the output lies off the centre of the input.
    """

    input: Vec3
    output: Vec3
    crop: tuple[float, float, float] | None = None
    factor: Vec3 = (1, 1, 1)
    tiling: Vec3 | None = None
    moved: Vec3 = (0, 0, 0)

    @property
    def front(self) -> Vec3:
        """Voxels of the output in front of it, from where the input begins: both share their centre voxel, size // 2.

        What eval mode crops of the output of training is an exception: the smaller half of an odd number in front.
        """
        fine = vec3(n * f for n, f in zip(self.input, self.factor, strict=True))
        return vec3(s.start + m for s, m in zip(centre_slices(fine, self.output), self.moved, strict=True))


def crops(model: PlugIn) -> bool:
    """Whether a model can crop its output to a smaller patch."""
    return _takes(model, "cropsz") and bool(getattr(model.module, "crops", True))


def _takes(model: PlugIn, parameter: str) -> bool:
    return parameter in inspect.signature(model.module.create_model).parameters


def patch_sizes(model: PlugIn, inputsz: Vec3, outputsz: Vec3 | None, *, evaluating: bool = False) -> PatchSizes:
    """The patch sizes of a model.

    Args:
        model: The model and its flags.
        inputsz: The input patch.
        outputsz: The output patch asked for, or None for what the model gives.
        evaluating: In eval mode, where some networks give less than in training.

    Raises:
        InputError: a patch that does not fit the network, or an output that it cannot give.
    """
    with model.calling():
        module: object = model.module
        gives: Vec3 = module.output_size(inputsz, **model.flags) if isinstance(module, HasOutputSize) else inputsz
        fewer, factor, tiling = gives, (1, 1, 1), None
        if isinstance(module, HasEvaluationSize):
            fewer = module.evaluation_size(inputsz, **model.flags)
        if isinstance(module, HasTiles):
            factor, tiling = module.output_factor(**model.flags), module.tiling(**model.flags)
    moved = (0, 0, 0)
    if evaluating and fewer != gives:
        moved = vec3((g - f) // 2 - (g // 2 - f // 2) for g, f in zip(gives, fewer, strict=True))
        gives = fewer
    if outputsz is None or outputsz == gives:
        return PatchSizes(inputsz, gives, None, factor, tiling, moved)
    _require_crop(model, inputsz, outputsz, gives, fewer)
    z, y, x = (o / i for o, i in zip(outputsz, inputsz, strict=True))
    return PatchSizes(inputsz, outputsz, (z, y, x), factor, tiling, moved)


def _require_crop(model: PlugIn, inputsz: Vec3, outputsz: Vec3, gives: Vec3, fewer: Vec3) -> None:
    """Refuse an output patch that a model cannot crop its output to."""
    asked = _comma(outputsz)
    if not crops(model):
        raise InputError("--outputsz", asked, f"{_comma(gives)}, what the model gives for {_comma(inputsz)}")
    if any(o > g for o, g in zip(outputsz, gives, strict=True)):
        raise InputError("--outputsz", asked, f"at most {_comma(gives)}")
    if any(g % 2 == 0 and o % 2 for o, g in zip(outputsz, gives, strict=True)):
        raise InputError("--outputsz", asked, f"even sizes where {_comma(gives)} is even: it has no centre voxel")
    odd = [axis for axis, g in enumerate(gives) if fewer[axis] != g and ((g - outputsz[axis]) | (g - fewer[axis])) % 2]
    if odd:
        both = f"{_comma(gives)} in training and {_comma(fewer)} in evaluation"
        raise InputError("--outputsz", asked, f"none: the centre of {both} is not one voxel")


def evaluates_smaller(model: PlugIn) -> bool:
    """Whether a model has a size of its own for eval mode."""
    return isinstance(model.module, HasEvaluationSize)


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
