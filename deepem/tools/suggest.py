"""Choose what to annotate next: the regions of a volume where the model is least certain.

    deepem forward --exp_name E --data_dir data --test_ids t1 --test_aug 0 1 2 3 --variance
    deepem suggest data/t1/img.h5 --predictions experiments/E/forward/t1_mitochondria_1000.h5 --out annotate

Each cut-out gets a folder with the image, context around it, and the current prediction as a draft. round1.json lists
the cut-outs. Correct each draft, save it beside the draft as mit.h5 (seg.h5, ...), and continue training:

    deepem train --data annotated --data_dir annotate --mit 1 --pretrain experiments/E/models/model1000.chkpt

The next call makes round2, which overlaps no earlier one. The volume is read in boxes, so it may be of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from deepem.cli import words as readers
from deepem.cli.flags import REQUIRED, Group, flag
from deepem.cli.parser import leading, read_group
from deepem.tools import output
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

PROGRAM = "deepem suggest"


@dataclass(frozen=True)
class SuggestOptions(Group):
    """What to rank, and how to choose."""

    title = "suggestions"
    predictions: list[str] = flag(
        REQUIRED, "outputs of deepem forward for the image; several for --by disagreement", metavar="FILE", many="+"
    )
    out: str = flag(REQUIRED, "folder of the rounds", metavar="FOLDER")
    by: Literal["entropy", "variance", "disagreement", "segments", "random", "grid"] = flag(
        "entropy",
        "entropy of the prediction; variance: from forward --variance; disagreement of several predictions; segments: "
        "disagreement of segmentations at two thresholds; random or grid, to compare with",
    )
    count: int = flag(8, "number of cut-outs", read=readers.counting, metavar="N")
    size: Vec3 = flag((16, 64, 64), "size of a cut-out in voxels", read=readers.size, metavar="Z,Y,X")
    context: Vec3 = flag((4, 32, 32), "voxels of context on each side of a cut-out", metavar="Z,Y,X")
    distance: float = flag(0.0, "least distance between centres, in nm if the image has a voxel size, "
                                "else in voxels", read=readers.non_negative, metavar="D")  # fmt: skip
    diverse: bool = flag(True, "choose cut-outs that differ among the best (greedy core-set)", negatable=True)
    checkpoint: str | None = flag(
        None, "compare features of this network (default: means and deviations of image and prediction)",
        metavar="FILE",
    )  # fmt: skip
    thresholds: tuple[float, float] = flag((0.3, 0.7), "thresholds of --by segments", read=readers.fraction, many=2)
    seed: int = flag(0, "seed of --by random", read=readers.natural)


def main(words: Sequence[str]) -> int:
    """Read the command line, choose, and write the cut-outs."""
    with output.errors_of(PROGRAM, "predictions", "context", "size", "by") as flags:
        images, rest = leading(words)
        own = read_group(
            PROGRAM,
            __doc__,
            SuggestOptions,
            rest,
            f"{PROGRAM} IMG.h5 --predictions P.h5 --out annotate",
        )
        flags.update(vars(own))
        if len(images) != 1:
            raise InputError("IMAGE", " ".join(images) or "nothing", "one image")
        if min(own.context) < 0:
            raise InputError("context", own.context, "0 or more")
        from deepem.tools.suggesting import suggest

        for line in suggest(images[0], own):
            output.say(line)
    return 0
