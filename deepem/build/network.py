"""Builds the network of a model module, and works out its patch sizes."""

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
    """The sizes of the patches that a network takes and returns.

    Attributes:
        input: Input patch, (z, y, x) voxels.
        output: Output patch, (z, y, x) voxels, in the middle of the input.
        crop: Output / input if the model has to crop to give this output, else None.
        factor: Voxels of the output per voxel of the input.
        tiling: A patch may be moved by multiples of this many output voxels without changing the network's value at any
            voxel; None if the values depend on the patch position anyway.
        moved: Offset of the output from the centre of the input, in voxels.
    """

    input: Vec3
    output: Vec3
    crop: tuple[float, float, float] | None = None
    factor: Vec3 = (1, 1, 1)
    tiling: Vec3 | None = None
    moved: Vec3 = (0, 0, 0)

    @property
    def front(self) -> Vec3:
        """Number of output voxels between the start of the input and the start of the output.

        Input and output share their centre voxel, size // 2. There is one exception: if eval mode crops an odd number
        of voxels from the output of training, the smaller half comes off the front.
        """
        fine = vec3(n * f for n, f in zip(self.input, self.factor, strict=True))
        return vec3(s.start + m for s, m in zip(centre_slices(fine, self.output), self.moved, strict=True))


def crops(model: PlugIn) -> bool:
    """Whether a model can crop its output to a smaller patch."""
    return _takes(model, "cropsz") and bool(getattr(model.module, "crops", True))


def _takes(model: PlugIn, parameter: str) -> bool:
    return parameter in inspect.signature(model.module.create_model).parameters


def patch_sizes(model: PlugIn, inputsz: Vec3, outputsz: Vec3 | None, *, evaluating: bool = False) -> PatchSizes:
    """Return the patch sizes of a model.

    Args:
        model: The model with the values of its flags.
        inputsz: The input patch.
        outputsz: The requested output patch, or None for the model's own.
        evaluating: Whether to give the sizes in eval mode, in which some networks return smaller outputs.

    Raises:
        InputError: a patch does not fit the network, or the network cannot give this output.
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
    """Refuse a requested output patch if the model cannot crop its output to it."""
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
    """Whether a model has a different output size in eval mode."""
    return isinstance(model.module, HasEvaluationSize)


def evaluated(model: PlugIn, sizes: PatchSizes, *, eval_mode: bool) -> PatchSizes:
    """Return the patch sizes in eval mode, for a model whose training output was not cropped on request."""
    if sizes.crop is not None or not eval_mode or not evaluates_smaller(model):
        return sizes
    return patch_sizes(model, sizes.input, None, evaluating=True)


def require_room_for_edges(chosen: Sequence[Task], output: Vec3) -> None:
    """Refuse edges that are as long as the output patch or longer.

    Raises:
        InputError: an edge reaches from one side of the patch to the other.
    """
    for edge in (edge for task in chosen for edge in task.edges):
        if any(abs(d) >= n for d, n in zip(edge, output, strict=True)):
            raise InputError("--edges", _comma(edge), f"edges shorter than the output patch, {_comma(output)}")


def specs(chosen: Sequence[Task], channels: int, sizes: PatchSizes) -> tuple[dict[str, Shape4], dict[str, Shape4]]:
    """Return the shapes of the network's input and outputs: name -> (C, Z, Y, X)."""
    return {"input": (channels, *sizes.input)}, tasks.out_spec(chosen, sizes.output)


def create_network(
    model: PlugIn, chosen: Sequence[Task], channels: int, sizes: PatchSizes, *, seed: int | None = None
) -> nn.Module:
    """Create the network of a model module, on the CPU.

    Args:
        model: The model with the values of its flags.
        chosen: The tasks; the network has a head for each.
        channels: Number of image channels.
        sizes: The result of `patch_sizes`.
        seed: The seed of the initial weights; None if a checkpoint replaces them.

    Raises:
        InputError: the model cannot use these flags.
    """
    import torch

    in_spec, out_spec = specs(chosen, channels, sizes)
    filled_in: dict[str, Any] = {"in_spec": in_spec, "out_spec": out_spec}
    if _takes(model, "cropsz"):
        filled_in["cropsz"] = sizes.crop
    if seed is not None:
        torch.manual_seed(seed)
    return as_module(model.create(**filled_in), model.where)


def as_module(made: Any, where: str) -> nn.Module:
    """Return what a model module's create_model returned, if it is a network.

    Raises:
        InputError: it is anything else.
    """
    from torch import nn

    if not isinstance(made, nn.Module):
        got = "a class" if isinstance(made, type) else "None" if made is None else f"a {type(made).__name__}"
        raise InputError(where, f"{got} from create_model", "a torch.nn.Module")
    return made


def _comma(size: Sequence[int]) -> str:
    return ",".join(map(str, size))
