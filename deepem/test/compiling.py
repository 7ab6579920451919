"""Run the first call of a compiled network, which compiles it."""

from __future__ import annotations

import torch

from deepem.scan.patch_network import Network
from deepem.utils.errors import InputError, reason


def compile_now(network: Network, patches: torch.Tensor) -> None:
    """Make the first call of a compiled network now, so that compilation does not count as the network's memory.

    Raises:
        InputError: compilation fails on this machine, for example because there is no C++ compiler.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        network(patches)
    except TorchDynamoException as error:
        raise InputError(
            "--compile", reason(error), "a compiler such as g++ and a network it takes, or no --compile"
        ) from error
