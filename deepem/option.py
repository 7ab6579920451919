"""The argument groups that train and forward share, and what they mean."""

from __future__ import annotations

import inspect
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from deepem import tasks
from deepem.utils import argv, modules
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3


def add_model(parser: argv.Parser, model: str | None) -> None:
    """The network and its sizes; `model` is the default."""
    group = parser.add_argument_group("network")
    group.add_argument("--model", default=model, metavar="MODULE", help="model module")
    group.add_argument(
        "--fov", type=argv.size, metavar="Z,Y,X", help="field of view of the network (default: 20,256,256)"
    )
    group.add_argument("--inputsz", type=argv.size, metavar="Z,Y,X", help="input patch (default: --fov)")
    group.add_argument(
        "--outputsz", type=argv.size, metavar="Z,Y,X", help="output patch (default: what the model gives)"
    )


def add_device(parser: argv.Parser, flag: str, **kwargs: Any) -> None:
    """Which device to run on."""
    group = parser.add_argument_group("device")
    group.add_argument(
        flag,
        type=argv.natural,
        metavar="GPU",
        help="CUDA device by number (default: the first, if any)",
        **kwargs,
    )
    group.add_argument("--cpu", action="store_true", help="run on the CPU")


def add_tasks(parser: argv.Parser, *, weights: bool) -> None:
    """One flag per task, a weight in training and a switch in inference, and what shapes their outputs."""
    group = parser.add_argument_group("tasks" if weights else "tasks (default: those of the checkpoint)")
    for task in tasks.TASKS:
        if weights:
            group.add_argument(f"--{task.flag}", type=argv.non_negative, default=0.0, metavar="WEIGHT", help=task.help)
        elif task.along_edges:
            group.add_argument(f"--{task.flag}", type=argv.natural, default=0, metavar="N", help=task.help)
        else:
            group.add_argument(f"--{task.flag}", action="store_true", help=task.help)
        if task.settable:
            group.add_argument(
                f"--{task.channels_flag}", type=argv.counting, metavar="N",
                help=f"output channels of --{task.flag}" + (f" (default: {task.channels})" if task.channels else ""),
            )  # fmt: skip
        if task.weights_flag:
            group.add_argument(
                f"--{task.weights_flag}", type=argv.non_negative, nargs="*", metavar="WEIGHT",
                help=f"weight of each class of --{task.flag} in the loss (default: 1 each)",
            )  # fmt: skip
    group.add_argument("--edges", type=argv.edge, nargs="*", metavar="Z,Y,X", help="the edges of --long")


def run_folder(exp_name: str, test: bool = False) -> Path:
    """Where a run lives: experiments/<exp_name> under the working directory, under test/ for a trial.

    A name that begins with experiments/ is that folder, not doubled.
    """
    name = Path(exp_name)
    name = Path(*name.parts[1:]) if name.parts[:1] == ("experiments",) else name
    return Path("test" if test else "", "experiments") / name


def chosen_tasks(options: Mapping[str, Any]) -> tuple[tasks.Task, ...]:
    """The rows that the options choose (a positive weight, or a switch that is on)."""
    flags = [task.flag for task in tasks.TASKS if options.get(task.flag)]
    channels = {t.flag: options[t.channels_flag] for t in tasks.TASKS if options.get(t.channels_flag)}
    weights = {t.flag: options[t.weights_flag] for t in tasks.TASKS if t.weights_flag and options.get(t.weights_flag)}
    return tasks.choose(flags, options.get("edges") or (), channels, weights)


def device(gpu: int | None, cpu: bool, flag: str = "--gpu_ids") -> str:
    """The torch device to use: the GPU asked for, else the first one, else the CPU with a line that says so."""
    import torch

    if cpu:
        return "cpu"
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu is not None:
        if gpu >= there:
            raise InputError(
                flag,
                gpu,
                f"a CUDA device below {there}" if there else "no number: there is no CUDA device",
            )
        return f"cuda:{gpu}"
    if not there:
        sys.stderr.write("no CUDA device found: running on the CPU\n")
    return "cuda:0" if there else "cpu"


def has_fast_bf16(device: str) -> bool:
    """Whether bfloat16 is multiplied faster than float32.

    Of two processors with the instruction for it in AVX-512, convolutions took half the time on an AMD one (Zen 4 and
    later) and twice the time on an Intel one without AMX, which has half as many units for it as for float32. No
    timing decides, so that all processes and every resumed run agree.
    """
    import torch

    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if torch.cpu._is_amx_tile_supported():
        return True
    return bool(torch.cpu._is_avx512_bf16_supported()) and _is_amd()


def _is_amd() -> bool:
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no Linux
        return "AuthenticAMD" in platform.processor()


def own(kind: str, module: ModuleType, options: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the flags that a plug-in module takes."""
    return {flag.name: options[flag.name] for flag in modules.flags(kind, module)}


def crops(module: ModuleType) -> bool:
    """Whether a model gives less than its network does where `cropsz` says so."""
    return _takes_cropsz(module) and getattr(module, "crops", True)


def _takes_cropsz(module: ModuleType) -> bool:
    return "cropsz" in inspect.signature(module.create_model).parameters


def create_model(module: ModuleType, cropsz: tuple[float, float, float] | None, **keywords: Any) -> Any:
    """The network of a model module, from its flags and specs; `cropsz` goes to those that know it."""
    filled = {"cropsz": cropsz} if _takes_cropsz(module) else {}
    return module.create_model(**filled, **keywords)


def output_patch(
    module: ModuleType, flags: Mapping[str, Any], inputsz: Vec3, outputsz: Vec3 | None
) -> tuple[Vec3, tuple[float, float, float] | None]:
    """The size of a model's output patch, and the fractions `cropsz` to create it with, if it is to crop.

    Args:
        module: The model module.
        flags: The values of its flags.
        inputsz: The input patch.
        outputsz: The output patch asked for, or None for what the model gives.

    Raises:
        InputError: a patch that does not fit the network, or an output that it cannot give.
    """
    gives: Vec3 = module.output_size(inputsz, **flags) if hasattr(module, "output_size") else inputsz
    if outputsz is None or outputsz == gives:
        return gives, None
    if not crops(module):
        raise InputError("--outputsz", _comma(outputsz), f"{_comma(gives)}, what the model gives for {_comma(inputsz)}")
    if any(o > g for o, g in zip(outputsz, gives, strict=True)):
        raise InputError("--outputsz", _comma(outputsz), f"at most {_comma(gives)}")
    if any(g % 2 == 0 and o % 2 for o, g in zip(outputsz, gives, strict=True)):
        raise InputError(
            "--outputsz", _comma(outputsz), f"even sizes where {_comma(gives)} is even: it has no centre voxel"
        )
    z, y, x = (o / i for o, i in zip(outputsz, inputsz, strict=True))
    return outputsz, (z, y, x)


def _comma(size: Vec3) -> str:
    return ",".join(map(str, size))
