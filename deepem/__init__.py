"""Iteration-based multi-task training and stitched inference for volume electron microscopy.

The command line is `deepem.__main__`. This module imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

__version__ = "0.1.0"


def load(path: str | Path, model: str | None = None, *, raw: bool = False) -> nn.Module:
    """Load a trained network, which maps (N, C, Z, Y, X) float32 in [0, 1] to ``{name: logits (N, C, Z, Y, X)}``.

    Args:
        path: A folder written by `deepem export`, or a checkpoint.
        model: The model module if it is not one of deepem's. A file never decides which code runs.
        raw: Take the trained weights of a checkpoint instead of their moving average.

    Returns:
        The network in eval mode, on the CPU.

    Raises:
        deepem.utils.errors.InputError: the path cannot be read, or does not say how to build the network.
    """
    from deepem.build import loading

    return loading.load(path, model, raw=raw)
