"""Iteration-based multi-task training and stitched inference for volume electron microscopy.

`deepem.__main__` is the command line. Nothing heavy is imported here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

__version__ = "0.1.0"


def load(path: str | Path, model: str | None = None, *, raw: bool = False) -> nn.Module:
    """A trained network, ready to call: (N, C, Z, Y, X) float32 in [0, 1] -> ``{name: logits (N, C, Z, Y, X)}``.

    Args:
        path: A folder that `deepem export` wrote, or a checkpoint.
        model: The model module, where it is not one of deepem's: a file does not decide which code is run.
        raw: Of a checkpoint, take the weights as trained, not their average.

    Returns:
        The network in eval mode, on the CPU.

    Raises:
        deepem.utils.errors.InputError: what is there cannot be read, or does not say how the network is built.
    """
    from deepem.build import loading

    return loading.load(path, model, raw=raw)
