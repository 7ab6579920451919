"""Device settings: precision, choice of algorithms, and random seeds."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from deepem.utils.errors import InputError, reason
from deepem.utils.geometry import Vec3

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}

FIRST_SCALE, LEAST_SCALE = 2.0**8, 2.0**-24
"""Initial and lowest gradient scale for fp16. Summed losses have large gradients, so a scale below 1 is normal."""


def configure(device: torch.device, *, tf32: bool, cudnn_benchmark: bool, deterministic: bool) -> None:
    """Set torch's process-wide options."""
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = cudnn_benchmark and not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads this on its first use
    if device.type == "cuda":
        torch.cuda.set_device(device)  # otherwise pinned memory also takes memory of GPU 0
        precision = "tf32" if tf32 else "ieee"
        torch.backends.cuda.matmul.fp32_precision = precision
        torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]


def seed(device: torch.device, number: int) -> None:
    """Seed the random numbers of the CPU and of the device.

    `torch.manual_seed` is avoided: it records a stack trace for each kind of device that is not in use.
    """
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(number)


def read_later(values: Tensor) -> Callable[[], list[float]]:
    """Start copying numbers from a device. The returned function waits for this copy, but not for later work."""
    here = values.to("cpu", non_blocking=True)
    arrived = torch.cuda.Event() if values.is_cuda else None
    if arrived is not None:
        arrived.record(torch.cuda.current_stream(values.device))

    def look() -> list[float]:
        if arrived is not None:
            arrived.synchronize()
        found: list[float] = here.tolist()
        return found

    return look


class Precision:
    """Mixed precision: the number type of the forward pass, and the gradient scale that keeps fp16 gradients from zero.

    Args:
        device: The network's device.
        amp: bf16, fp16 or off.
    """

    def __init__(self, device: torch.device, amp: str) -> None:
        self.device, self.dtype = device, HALVES.get(amp, torch.float32)
        self.scaler = torch.amp.GradScaler(device.type, FIRST_SCALE, enabled=amp == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        """The autocast context of the forward pass."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)


@contextmanager
def enough_memory(patch: Vec3, batch_size: int, what_fits: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Turn an out-of-memory error within this context into an InputError.

    Args:
        patch: The input patch.
        batch_size: Samples per step.
        what_fits: Called once the memory of the failed step is free; returns flags that should fit, if it can tell.

    Raises:
        InputError: the device does not have enough memory.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        got = f"{','.join(map(str, patch))} and {batch_size}, too much for the device ({reason(error)})"
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step
        fits = what_fits()
        less = f"{fits} (should fit)" if fits else "less"
        wants = f"{less}, --amp bf16, --accumulate for a batch, or a model's --checkpointing"
        raise InputError("--fov, --batch_size", got, wants) from error


class DeterministicPool(nn.Module):
    """Max pooling without overlap whose gradient is deterministic on a GPU, unlike cuDNN's.

    Each window is unfolded into an axis of its own. The gradient of a maximum over an axis is written, not added, to
    the first of the largest values, as in `nn.MaxPool3d`.
    """

    def __init__(self, size: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) -> (N, C, Z // size[0], Y // size[1], X // size[2])."""
        shape = [n // k for n, k in zip(x.shape[-3:], self.size, strict=True)]
        x = x[..., : shape[0] * self.size[0], : shape[1] * self.size[1], : shape[2] * self.size[2]]
        (z, y, x_), (a, b, c) = shape, self.size
        windows = x.reshape(*x.shape[:2], z, a, y, b, x_, c).permute(0, 1, 2, 4, 6, 3, 5, 7)
        return windows.flatten(-3).max(-1).values


def made_deterministic(network: nn.Module) -> nn.Module:
    """Replace the max poolings of a network by deterministic ones; parameter names stay the same.

    Raises:
        InputError: a pooling has overlap or padding.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.MaxPool3d):
                size, stride = _three(child.kernel_size), _three(child.stride)
                if size != stride or _three(child.padding) != (0, 0, 0) or child.ceil_mode:
                    raise InputError("--deterministic", f"a pooling {child}", "poolings without overlap or padding")
                setattr(parent, name, DeterministicPool(size))
    return network


def _three(value: int | tuple[int, ...]) -> tuple[int, int, int]:
    z, y, x = (value,) * 3 if isinstance(value, int) else value
    return z, y, x
