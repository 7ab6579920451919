"""The processes that train one network together: which one this is, and what they agree on."""

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
"""How long the interpreter is left to gloo's own thread after the last exchange: that thread needs it to let go of its
tensors, and a group that is taken apart before that hangs or aborts (torch 2.13)."""


class Ranks:
    """This process among those that train together, as torchrun describes it in the environment; else alone.

    Args:
        timeout: Seconds that they wait for one that does not answer: longer than the first one takes for a checkpoint.

    Attributes:
        rank: Number of this process, from 0.
        world: How many there are.
        local: Number of this process on its machine.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timedelta(seconds=timeout)
        self.rank = int(os.environ.get("RANK", 0))
        self.world = int(os.environ.get("WORLD_SIZE", 1))
        self.local = int(os.environ.get("LOCAL_RANK", 0))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def join(self, device: torch.device) -> None:
        """Meet the others, unless whoever started them has introduced them; every one of them must come."""
        if self.world == 1:
            return
        self._own = not distributed.is_initialized()
        if self._own:
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=self.timeout)

    def leave(self) -> None:
        """Part from the others, once all have come here: whoever starts the processes may end all when one ends."""
        if self.world > 1:
            distributed.barrier()
            time.sleep(SETTLE_S)
            if self._own:
                distributed.destroy_process_group()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all, written into the tensor."""
        if self.world > 1:
            distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether it is true for any."""
        return self.ask(flag, device)()

    def ask(self, flag: bool, device: torch.device) -> Callable[[], bool]:
        """Ask whether it is true for any. What this gives waits for the answer, but not for what is asked later."""
        if self.world == 1:
            return lambda: flag
        look = read_later(self.sum(torch.full((1,), float(flag), device=device)))
        return lambda: look()[0] > 0

    def together(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with gradients that are averaged over all."""
        if self.world == 1:
            return network
        # kernels of one voxel are in both memory formats at once, and DDP takes exception to which strides tell so
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        on: dict[str, Any] = {"device_ids": [device]} if device.type == "cuda" else {}
        return nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True, **on)
