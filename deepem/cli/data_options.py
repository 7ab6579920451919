"""The options of training that say where samples come from."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, Literal

from deepem.cli import words
from deepem.cli.flags import ASK, FREE, Group, flag


def _intensity(word: str) -> Any:
    """Parse ``none``, ``percentile``, or ``LOW,HIGH``, the grey values to map to 0 and 1."""
    given = words.text(word).strip()
    if given in ("none", "percentile"):
        return given
    try:
        low, high = (words.number(part) for part in given.split(","))
    except (ValueError, argparse.ArgumentTypeError):
        low = high = 0.0
    if not low < high:
        raise argparse.ArgumentTypeError(f"got {given}, wants LOW,HIGH with LOW < HIGH, percentile, or none")
    return low, high


@dataclass(frozen=True)
class DataOptions(Group):
    """Where samples come from."""

    title = "data (MODULE: a short name, a dotted path or a file)"
    data: list[str] | None = flag(None, "dataset modules", metavar="MODULE", many="+")
    data_dir: str = flag("data", "folder of the datasets", metavar="DIR", resume=FREE)
    train_ids: list[str] | None = flag(None, "volumes to train on, ID or MODULE/ID", metavar="ID", many="+")
    val_ids: list[str] | None = flag(None, "volumes to evaluate on", metavar="ID", many="+", resume=FREE)
    train_prob: list[float] | None = flag(
        None, "sampling weight of each of --train_ids", read=words.positive, metavar="P", many="+", resume=ASK
    )
    val_prob: list[float] | None = flag(
        None, "sampling weight of each of --val_ids", read=words.positive, metavar="P", many="+", resume=FREE
    )
    lazy: bool = flag(False, "read volumes from disk as samples are drawn, for those larger than memory", resume=FREE)
    cache_mb: int = flag(
        1024, "memory for chunks that --lazy has read, over all workers together",
        read=words.natural, metavar="MB", resume=FREE,
    )  # fmt: skip
    sampler: str = flag("basic", "sampler module", metavar="MODULE")
    augment: str | None = flag(None, "augmentation recipe", metavar="MODULE")
    intensity: list[Any] = flag(
        ["none"], "for images that are not bytes, grey values to map to 0 and 1: LOW,HIGH (for each channel), "
        "percentile, or none", read=_intensity, metavar="LOW,HIGH", many="+", older=["none"],
    )  # fmt: skip
    percentiles: tuple[float, float] = flag((0.5, 99.5), "low and high percentile of --intensity percentile")
    percentiles_of: Literal["train", "volume"] = flag("train", "percentiles of all training voxels, or per volume")
    modifier: str | None = flag(None, "module that changes batches on the device, in training only", metavar="MODULE")
