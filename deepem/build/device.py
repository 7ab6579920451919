"""Chooses the device to run on, and tells whether bfloat16 is fast on it."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from deepem.utils.errors import InputError


def choose_device(gpu: int | None, cpu: bool, flag: str = "--gpu_ids") -> str:
    """Return the name of the torch device to use.

    This is the requested GPU, otherwise the first GPU, otherwise the CPU with a one-line message on stderr.

    Args:
        gpu: Number of a CUDA device, or None for the first one.
        cpu: Use the CPU even if there is a GPU.
        flag: The flag to name in errors.

    Raises:
        InputError: no GPU has this number.
    """
    import torch

    if cpu:
        return "cpu"
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpu is not None:
        if gpu >= there:
            wants = f"a CUDA device below {there}" if there else "no number: there is no CUDA device"
            raise InputError(flag, gpu, wants)
        return f"cuda:{gpu}"
    if not there:
        sys.stderr.write("no CUDA device found: running on the CPU\n")
    return "cuda:0" if there else "cpu"


def has_fast_bf16(device: str) -> bool:
    """Whether the device multiplies bfloat16 faster than float32.

    The AVX-512 bfloat16 instruction alone does not decide. With it, convolutions took half the time on an AMD processor
    (Zen 4 and later), but twice the time on an Intel processor without AMX, which has half as many units for bfloat16
    as for float32. The choice is not timed, so that all processes and every resumed run agree.
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
    except OSError:  # not Linux
        return "AuthenticAMD" in platform.processor()
