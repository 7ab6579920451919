"""The flags of `deepem segment`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deepem.cli import words as readers
from deepem.cli.flags import REQUIRED, Group, flag
from deepem.cli.parser import leading, read_group
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

PROGRAM = "deepem segment"


@dataclass(frozen=True)
class SegmentOptions(Group):
    """What to segment, how, and where to write the segments."""

    title = "segmentation"
    out: str = flag(REQUIRED, "label volume to write: .h5, .zarr, file://, gs://, ...", metavar="FILE")
    decoder: Literal["agglomerate", "mutex", "components", "watershed", "objects"] = flag(
        "agglomerate", "how probabilities become segments"
    )
    threshold: list[float] = flag(
        [0.5],
        "join higher affinities; several thresholds each get a file OUT_<threshold>",
        read=readers.fraction,
        many="+",
    )
    min_size: int = flag(0, "leave out segments of fewer voxels", read=readers.natural, metavar="N")
    join_smaller: int = flag(
        0, "join segments of fewer voxels to the neighbour with the highest affinity", read=readers.natural, metavar="N"
    )
    mask: list[str] | None = flag(None, "do not segment where these volumes are 0", metavar="FILE", many="+")
    exclude: list[str] | None = flag(
        None,
        "labels or probabilities of objects that segments must not enter, such as vessels",
        metavar="FILE",
        many="+",
    )
    edges: list[Vec3] | None = flag(
        None,
        "edge of each channel, for affinities without the attribute edges",
        read=readers.edge,
        metavar="Z,Y,X",
        many="+",
    )
    edge_direction: Literal["backward", "forward"] | None = flag(
        None, "--edges relate voxel v to v - edge (backward, as here) or to v + edge"
    )
    channel: int | None = flag(None, "channel of a boundary map or of objects", read=readers.natural, metavar="N")
    corners: bool = flag(False, "objects: also join voxels that touch only at an edge or a corner")
    split: int = flag(
        0,
        "objects: split them at narrow places, with seeds at least N voxels apart",
        read=readers.natural,
        metavar="N",
    )
    min_seed: int = flag(0, "watershed: ignore seeds of fewer voxels", read=readers.natural, metavar="N")
    holes: bool = flag(False, "fill holes that one segment encloses")
    halo: Vec3 = flag((32, 32, 32), "voxels around a block that watershed, --split and --holes see", metavar="Z,Y,X")
    block: Vec3 | None = flag(
        None, "block to process at a time (default: 64,256,256); does not change the result",
        read=readers.size, metavar="Z,Y,X",
    )  # fmt: skip
    proofread: str | None = flag(
        None, "also write the fragments (precomputed) and their edge list with scores here", metavar="FOLDER"
    )
    work: str | None = flag(None, "keep intermediate results here, for --again", metavar="FOLDER")
    again: bool = flag(False, "segment again from --work, with other thresholds or sizes")
    threads: int | None = flag(
        None, "blocks to process in parallel (default: processors, at most 8)", read=readers.counting
    )

    @property
    def outputs(self) -> dict[str, str]:
        """The path of each threshold's volume; keys are thresholds as text."""
        names = [f"{threshold:g}" for threshold in self.threshold]
        if len(set(names)) < len(names):
            raise InputError("--threshold", " ".join(names), "different ones")
        if len(names) == 1:
            return {names[0]: self.out}
        return {name: with_suffix(self.out, name) for name in names}


def with_suffix(path: str, suffix: str) -> str:
    """Return ``SEG_0.3.h5`` for ``SEG.h5`` and 0.3; a precomputed path has no ending."""
    if "://" in path:
        return f"{path.rstrip('/')}_{suffix}"
    stem, ending = os.path.splitext(path)
    return f"{stem}_{suffix}{ending}"


def read_words(words: Sequence[str], doc: str | None = None) -> tuple[list[str], SegmentOptions]:
    """Return the files and the options of a command line.

    Raises:
        InputError: a word of the command line cannot be used.
    """
    files, rest = leading(words)
    own = read_group(PROGRAM, doc, SegmentOptions, rest, f"{PROGRAM} AFFINITY.h5 --out SEG.h5")
    if not files:
        raise InputError("FILE", "nothing", f"probabilities: {PROGRAM} AFFINITY.h5 --out SEG.h5")
    return files, own
