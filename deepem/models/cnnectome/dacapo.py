"""Load weights written by DaCapo into our models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

KEYS = {"architecture.unet.": "core.", "chain.0.unet.": "core.", "unet.": "core."}
"""Prefixes in a DaCapo model, its chain or a `CNNectomeUNet`, and their prefixes in `deepem.models.cnnectome_unet`."""
HEADS = ("prediction_head.", "chain.1.")
OURS = ("core.", "in.", "out.")


def dacapo_keys(state_dict: Mapping[str, T], head: str | None = None) -> dict[str, T]:
    """Rename the state dict of a DaCapo model for a model of `deepem.models.cnnectome_unet`.

    ===============================================  ===========================
    DaCapo                                           here
    ===============================================  ===========================
    ``architecture.unet.KEY``, ``chain.0.unet.KEY``  ``core.KEY``
    ``unet.KEY``, ``KEY`` (the network alone)        ``core.KEY``
    ``prediction_head.KEY``, ``chain.1.KEY``         ``out.<head>.conv.KEY``
    ===============================================  ===========================

    DaCapo's files store the state dict as ``model``, next to ``optimizer``. They store every entry twice, once more in
    the chain. KEY is the same on both sides, with ``0.`` in front if there is super-resolution. As in DaCapo, our model
    must have no convolution before the network and 1x1x1 heads (`io_kernel` not given).

    Args:
        state_dict: Name -> tensor.
        head: The output that receives DaCapo's only head, such as ``affinity``; None drops the head.

    Returns:
        A new dict, in the order of the first occurrence; entries that already have our names keep them.
    """
    found: dict[str, T] = {}
    for key, value in state_dict.items():
        name = _ours(key, head)
        if name is not None:
            found.setdefault(name, value)
    return found


def _ours(key: str, head: str | None) -> str | None:
    """Our name of an entry, or None if it has none."""
    if key.startswith(OURS):
        return key
    for theirs, ours in KEYS.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    for prefix in HEADS:
        if key.startswith(prefix):
            return None if head is None else f"out.{head}.conv.{key.removeprefix(prefix)}"
    return f"core.{key}"
