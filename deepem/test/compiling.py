"""The first call of a compiled network."""

from __future__ import annotations

import torch

from deepem.scan.patch_network import Network
from deepem.utils.errors import InputError, reason


def compile_now(network: Network, patches: torch.Tensor) -> None:
    """The first call of a compiled network: the memory that compiling takes is not what the network takes later.

    Raises:
        InputError: it cannot be compiled here, for want of a C++ compiler for example.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        network(patches)
    except TorchDynamoException as error:
        raise InputError(
            "--compile", reason(error), "a compiler such as g++ and a network it takes, or no --compile"
        ) from error
