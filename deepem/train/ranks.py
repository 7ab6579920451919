"""The processes (ranks) that train one network together: the rank of this process, and collective operations."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from deepem.train.device import read_later

SETTLE_S = 0.2
"""Seconds to sleep between the last collective operation and destroying the group. gloo's thread needs the GIL to
release its tensors; without this pause, destroying the group hangs or aborts (torch 2.13).
"""


class Ranks:
    """The rank of this process, read from torchrun's environment variables; without them, the process trains alone.

    Args:
        timeout: Seconds to wait for a rank that does not answer. It must exceed the time that rank 0 takes for a
            checkpoint.

    Attributes:
        rank: Number of this process, from 0.
        world: Number of processes.
        local: Number of this process on its machine.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timedelta(seconds=timeout)
        self.rank = int(os.environ.get("RANK", 0))
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        self.local = int(os.environ.get("LOCAL_RANK", 0))

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, the process that writes."""
        return self.rank == 0

    def join(self, device: torch.device) -> None:
        """Initialise the process group, unless the launcher already has. Every rank must call this."""
        if self.world == 1:
            return
        self._own = not distributed.is_initialized()
        if self._own:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=self.timeout)

    def leave(self) -> None:
        """Barrier, then destroy the group: launchers may kill all ranks when one exits."""
        if self.world > 1:
            distributed.barrier()
            time.sleep(SETTLE_S)
            if self._own:
                distributed.destroy_process_group()

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all ranks, in place."""
        if self.world > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is true on any rank."""
        return self.ask(flag, device)()

    def ask(self, flag: bool, device: torch.device) -> Callable[[], bool]:
        """Start asking whether the flag is true on any rank. The returned function waits for the answer only."""
        if self.world == 1:
            return lambda: flag
        look = read_later(self.sum(torch.full((1,), float(flag), device=device)))
        return lambda: look()[0] > 0

    def together(self, network: nn.Module, device: torch.device) -> nn.Module:
        """Wrap the network in DDP, which averages gradients over all ranks."""
        if self.world == 1:
            return network
        # kernels of one voxel fit both memory formats, and DDP warns about their strides
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        on: dict[str, Any] = {"device_ids": [device]} if device.type == "cuda" else {}
        return nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True, **on)
