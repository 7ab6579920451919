"""The flags of `deepem evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deepem.cli import words as readers
from deepem.cli.flags import Group, flag
from deepem.cli.parser import leading, read_group
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3

PROGRAM = "deepem evaluate"
EXAMPLE = f"{PROGRAM} FILE ... --truth TRUTH"
METRICS = ("adapted_rand", "voi", "cremi", "objects", "oracle", "erl", "instances", "boxes", "detections")
WAYS = ("auto", "none", "agglomerate", "components", "mutex")


@dataclass(frozen=True)
class EvaluateOptions(Group):
    """What to score against which truth, and how."""

    title = "scores"
    truth: str | None = flag(None, "label volume, or folder with seg.h5, mit.h5, ...", metavar="TRUTH")
    mask: str | None = flag(None, "ignore voxels where this volume is 0", metavar="FILE")
    ignore_border: Vec3 | None = flag(
        None, "ignore voxels this close to a border between true objects", metavar="Z,Y,X"
    )
    kind: Literal["affinity", "binary", "semantic", "instance"] | None = flag(
        None, "what the files hold (default: what their attributes say, or a segmentation)"
    )
    json: Path | None = flag(None, "also write the scores to this file", metavar="FILE")
    picture: Path | None = flag(None, "draw curves and the worst splits and merges", metavar="PNG")
    image: str | None = flag(None, "image to show behind the cut-outs of --picture", metavar="FILE")

    segment: list[str] = flag(
        ["auto"], f"how affinities become segments: {', '.join(WAYS)}", read=readers.one_of(*WAYS), many="+",
        metavar="DECODER",
    )  # fmt: skip
    threshold: list[float] | None = flag(
        None, "thresholds to try on affinities (default: a range for each decoder)", read=readers.fraction, many="+"
    )
    by: Literal["adapted_rand", "voi", "cremi"] = flag("adapted_rand", "score by which to choose the threshold")
    tune_on: str | None = flag(
        None, "choose decoder and threshold on this volume, then score --test with them", metavar="PREDICTION:TRUTH"
    )
    test: list[str] | None = flag(
        None, "score these with the result of --tune_on", metavar="PREDICTION:TRUTH", many="+"
    )

    metrics: list[str] | None = flag(
        None, f"for label volumes: {', '.join(METRICS)}", read=readers.one_of(*METRICS), many="+", metavar="METRIC"
    )
    scores: Path | None = flag(
        None, "CSV with columns id and score of the objects (default: the CSV beside the file, if it is there)",
        metavar="CSV",
    )  # fmt: skip
    top: int = flag(10, "rows in the tables of the worst splits and merges", read=readers.natural, metavar="N")
    fragments: str | None = flag(None, "fragments of the segmentation, for the metric oracle", metavar="FILE")
    skeletons: str = flag("truth", "JSON file of skeletons for the metric erl; truth makes them from the true labels")
    merge_threshold: int = flag(
        2, "a segment with this many nodes of a second skeleton counts as a merger", read=readers.counting, metavar="N"
    )
    distance_nm: float | None = flag(None, "match detections by distance instead of overlap", read=readers.positive)
    min_overlap: int = flag(1, "voxels by which detections must overlap", read=readers.counting, metavar="N")


def read_words(words: Sequence[str], doc: str | None) -> tuple[list[str], EvaluateOptions]:
    """Return the files and the options of a command line.

    Raises:
        InputError: a word of the command line cannot be used.
    """
    files, rest = leading(words)
    own = read_group(PROGRAM, doc, EvaluateOptions, rest, EXAMPLE)
    if (own.tune_on is None) != (own.test is None):
        missing = "--test" if own.test is None else "--tune_on"
        raise InputError(missing, "nothing", "both --tune_on and --test")
    if own.tune_on is not None:
        if files or own.truth:
            raise InputError("--tune_on", "files beside it", "the volumes of --tune_on and --test alone")
        if own.tune_on in (own.test or ()):
            raise InputError("--test", own.tune_on, "another volume than that of --tune_on")
        return [], own
    if not files:
        raise InputError("FILE", "nothing", f"a prediction or a segmentation: {EXAMPLE}")
    if own.truth is None:
        raise InputError("--truth", "nothing", "a label volume, or a folder with seg.h5, mit.h5, ...")
    if len(own.segment) > 1 and {"auto", "none"} & {*own.segment}:
        raise InputError("--segment", " ".join(own.segment), "auto or none alone, or decoders")
    return files, own
