"""Turn the flags of `deepem segment` into the plan, its inputs, and the layout of its outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepem.io.label_volume import LabelLayout, chunk_within
from deepem.segment.plan import AFFINITIES, GRAPH, Plan
from deepem.segment.probabilities import Inside, Probabilities, opened_affinities, opened_channel, opened_inside
from deepem.tasks import from_plain
from deepem.tools.predictions import attributes
from deepem.tools.segment_options import SegmentOptions
from deepem.utils.errors import InputError, told_as, warn
from deepem.utils.geometry import Box, Vec3
from deepem.utils.provenance import provenance

REMEDY = "--edges and --edge_direction, or, for maps of something else, --decoder objects or watershed"
BLOCK: Vec3 = (64, 256, 256)


@dataclass(frozen=True)
class Opened:
    """The volumes of a segmentation.

    Attributes:
        plan: How to segment.
        probabilities: The input.
        inside: Where segments may lie, or None for everywhere.
        layout: Layout of the label volumes.
    """

    plan: Plan
    probabilities: Probabilities
    inside: Inside | None
    layout: LabelLayout


@contextmanager
def opened(files: Sequence[str], own: SegmentOptions, block: Vec3, quiet: bool = False) -> Iterator[Opened]:
    """Open the volumes that the options name.

    Args:
        files: The probabilities.
        own: The options of `deepem segment`.
        block: Block of the plan if the options do not name one; rounded up to whole chunks of the outputs.
        quiet: Do not report channels that are not used.

    Raises:
        InputError: the files or options do not fit together.
    """
    _refuse_idle(files, own)
    affinities = own.decoder in AFFINITIES
    with ExitStack() as stack:
        if affinities:
            held = opened_affinities(
                files, own.edges, own.edge_direction, own.decoder != "mutex", _silence if quiet else warn, REMEDY
            )
        else:
            held = opened_channel(files[0], own.channel)
        probabilities = stack.enter_context(held)
        inside = stack.enter_context(opened_inside(probabilities, own.mask or (), own.exclude or ()))
        chunk, whole = chunk_within(own.block or block)
        with told_as({"block size": "--block"}):
            plan = Plan(
                Box((0, 0, 0), probabilities.size), whole, own.decoder, probabilities.edges,
                min(own.threshold), own.corners, own.min_seed, own.split, own.holes, own.halo,
            )  # fmt: skip
        yield Opened(plan, probabilities, inside, LabelLayout(probabilities.size, chunk, _about(probabilities, own)))


def _silence(line: str) -> None:
    """Discard a line that has been reported before."""


def _about(probabilities: Probabilities, own: SegmentOptions) -> dict[str, Any]:
    """Return the attributes of a label volume; `label` names the label of which the objects are instances."""
    known: dict[str, Any] = {"axes": "zyx", "offset": np.asarray(probabilities.offset, np.int64)}
    if probabilities.voxel_size_nm is not None:
        known["voxel_size_nm"] = np.asarray(probabilities.voxel_size_nm, np.float64)
    made = {"provenance": json.dumps(provenance())}
    rows = attributes(probabilities.parts[0].stored).get("rows") if own.decoder == "objects" else None
    if rows:
        made["label"] = from_plain(rows[0]).source
    return known | made | {"source": "deepem segment " + " ".join(probabilities.names)}


def _refuse_idle(files: Sequence[str], own: SegmentOptions) -> None:
    """Refuse flags that the decoder does not use."""
    of = {
        "objects": ("corners", "split"),
        "watershed": ("min_seed",),
        **{name: ("edges", "edge_direction") for name in AFFINITIES},
    }
    for name in {name for names in of.values() for name in names}:
        takers = [decoder for decoder, names in of.items() if name in names]
        if getattr(own, name) not in (None, False, 0) and own.decoder not in takers:
            raise InputError(f"--{name}", f"the decoder {own.decoder}", " or ".join(takers))
    if own.decoder not in AFFINITIES and len(files) > 1:
        raise InputError(files[1], f"a second file for the decoder {own.decoder}", "one file")
    if own.channel is not None and own.decoder in AFFINITIES:
        raise InputError("--channel", f"the decoder {own.decoder}", "objects or watershed")
    if own.decoder not in GRAPH:
        if own.join_smaller or own.proofread:
            name = "join_smaller" if own.join_smaller else "proofread"
            raise InputError(f"--{name}", f"the decoder {own.decoder}", " or ".join(GRAPH))
        if len(own.threshold) > 1:
            raise InputError("--threshold", f"{len(own.threshold)} for the decoder {own.decoder}", "one")
    if own.min_size and own.decoder == "watershed":
        raise InputError("--min_size", "the decoder watershed", "--min_seed: how large segments become is known late")


def fingerprint(files: Sequence[str]) -> list[list[Any]]:
    """Return what shows whether local files have changed: path, size and modification time."""
    found: list[list[Any]] = []
    for file in files:
        path = Path(file.rsplit(":", 1)[0] if not Path(file).exists() else file)
        stat = path.stat() if path.exists() else None
        found.append([file, None, None] if stat is None else [file, stat.st_size, stat.st_mtime_ns])
    return found
