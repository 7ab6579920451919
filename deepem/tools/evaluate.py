"""Score outputs of deepem forward, and segmentations, against the truth.

    deepem evaluate experiments/E/forward/t1_affinity_1000.h5 --truth data/t1
    deepem evaluate SEG.h5 --truth data/t1/seg.h5 --ignore_border 0,1,1 --picture SEG.png
    deepem evaluate --tune_on val_affinity.h5:data/val --test test_affinity.h5:data/test

Affinities: average precision of the cut edges (which are rare; chance level is their share), and scores of
segmentations made from the affinities in memory. Binary outputs: area under the ROC curve and F1. Classes: precision,
recall and intersection over union of each class. Label volumes: adapted Rand error, variation of information, CREMI
score, the worst splits and merges; with --kind instance also the objects found, missed and invented. The attributes of
a file place it over the truth; a file that does not fit is refused. A threshold chosen on the volume that it is scored
on gives scores that are too good, and the output says so. --tune_on chooses the threshold on one volume, and --test
reports scores on others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from deepem.tools import output
from deepem.tools.evaluate_options import PROGRAM, EvaluateOptions, read_words
from deepem.tools.score_text import table, without_nan
from deepem.utils.errors import InputError
from deepem.utils.provenance import provenance

if TYPE_CHECKING:
    from deepem.build.cases import Ways
    from deepem.io.stored import Stored

Figures = dict[str, Any]

OF_LABELS: tuple[Literal["instance"]] = ("instance",)
"""Value of --kind for label volumes of single objects."""


def main(words: Sequence[str]) -> int:
    """Read the command line and score."""
    with output.errors_of(PROGRAM, "picture", "skeletons"):
        files, own = read_words(words, __doc__)
        for flag, path in (("--json", own.json), ("--picture", own.picture)):
            if path is not None:
                output.check_file(flag, path)
        results = score_all(files, own) if files else score_chosen(own)
        output.say("\n\n".join(table(result) for result in results))
        if own.json:
            made = provenance()
            rows = [{**without_nan(result), "provenance": made} for result in results]
            text = json.dumps(rows, indent=2, allow_nan=False)
            with output.writing("--json", own.json):
                own.json.write_text(f"{text}\n")
        if own.picture:
            from deepem.tools.score_picture import draw_results

            draw_results(own.picture, results, own)
    return 0


def score_all(files: Sequence[str], own: EvaluateOptions) -> list[Figures]:
    """Return all scores of each file, as --json writes them."""
    return [score(str(file), own) for file in files]


def score(file: str, own: EvaluateOptions) -> Figures:
    """Return all scores of one file."""
    from deepem.tools.predictions import attributes, described, holds_objects, opened_there

    with opened_there(file) as stored:
        held = attributes(stored)
        if holds_objects(held) and (not own.kind or own.kind in OF_LABELS):
            return score_label_volume(file, stored, replace(own, kind=OF_LABELS[0]))
        if described(held):
            return score_prediction(file, stored, own)
        if own.kind and own.kind not in OF_LABELS:
            raise InputError(file, "no attribute tasks", f"an output of deepem forward, for --kind {own.kind}")
        return score_label_volume(file, stored, own)


def ways_of(own: EvaluateOptions) -> Ways:
    """Return how to segment affinities."""
    from deepem.build.cases import Ways

    decoders = {"auto": None, "none": ()}.get(own.segment[0], tuple(own.segment))
    return Ways(decoders, tuple(own.threshold) if own.threshold else None, own.by)


def score_prediction(file: str, stored: Stored, own: EvaluateOptions) -> Figures:
    """Score an output of deepem forward according to its kind."""
    from deepem.build.scores import KINDS
    from deepem.tools.predictions import Prediction, opened_case

    prediction = Prediction.of(file, stored)
    if {own.kind} - {None, prediction.task.kind}:
        raise InputError("--kind", own.kind, f"{prediction.task.kind}, as {file} says")
    with opened_case(prediction, str(own.truth), own.mask, own.ignore_border) as (case, truth):
        found = KINDS[prediction.task.kind].score(case, ways_of(own))
    return {"file": file, "output": prediction.task.name, "truth": truth, **found}


def score_label_volume(file: str, stored: Stored, own: EvaluateOptions) -> Figures:
    """Score a label volume."""
    from deepem.tools.label_scores import OF_OBJECTS, OF_SEGMENTS, Asked, score_labels
    from deepem.tools.object_table import scores_of

    metrics = own.metrics or (OF_OBJECTS if own.kind else OF_SEGMENTS)
    asked = Asked(metrics, own.top, own.skeletons, own.merge_threshold, own.distance_nm, own.min_overlap)
    with ExitStack() as stack:
        case, truth = label_case(stack, file, stored, own)
        scores = scores_of(file, own.scores) if own.kind else None
        found = score_labels(replace(case, scores=scores), asked)
    return {"file": file, "output": "objects" if own.kind else "segmentation", "truth": truth, **found}


def label_case(stack: ExitStack, file: str, stored: Stored, own: EvaluateOptions) -> tuple[Any, str]:
    """Open a label volume with its truth; return both and the truth's file."""
    from deepem.tools.label_scores import LabelCase
    from deepem.tools.object_truth import instances_of
    from deepem.tools.predictions import (
        Laid,
        attributes,
        laid,
        opened_mask,
        opened_there,
        require_same_voxels,
        truth_file,
    )

    stored.check_axes()
    if stored.data.dtype.kind not in "iub" or stored.channels != 1:
        got = f"{stored.channels} x {stored.data.dtype} without an attribute tasks"
        raise InputError(file, got, "a label volume (Z, Y, X), or an output of deepem forward")
    label = str(attributes(stored).get("label", "seg"))
    _, name = truth_file(str(own.truth), (label,), file)
    volume = stack.enter_context(opened_there(name))
    require_same_voxels(file, stored.voxel_size_nm, volume, name)
    size, offset = stored.size, stored.info.offset
    labels, behind = Laid(stored, (0, 0, 0)), laid(volume, size, offset, file)
    counts = stack.enter_context(opened_mask(_Placed(file, size, offset), own.mask, behind, own.ignore_border))
    fragments = None
    if own.fragments is not None:
        fragments = laid(stack.enter_context(opened_there(own.fragments)), size, offset, file)
    return (
        LabelCase(
            file, size, offset, stored.voxel_size_nm or volume.voxel_size_nm,
            lambda box: labels.read(box)[0], instances_of(label, behind, size, name), counts,
            None if fragments is None else lambda box: fragments.read(box)[0],
        ),
        name,
    )  # fmt: skip


class _Placed:
    """Return the position of a label volume in the image."""

    def __init__(self, file: str, size: Any, offset: Any) -> None:
        self.file, self.size, self.offset = file, size, offset


def score_chosen(own: EvaluateOptions) -> list[Figures]:
    """Choose parameters on one volume, and score others with them."""
    from deepem.build.scores import KINDS
    from deepem.tools.predictions import opened_case, opened_prediction

    ways, results = ways_of(own), []
    file, truth = _pair("--tune_on", str(own.tune_on))
    with opened_prediction(file) as tuned, opened_case(tuned, truth, own.mask, own.ignore_border) as (case, name):
        kind = KINDS[tuned.task.kind]
        found = kind.choose(case, ways)
    chosen = found["chosen"]
    best = {"segmentation": {chosen["decoder"]: chosen}} if "decoder" in chosen else {}
    results.append({"file": file, "output": f"{tuned.task.name}, tuned", "truth": name, **found, **best})
    for pair in own.test or ():
        file, truth = _pair("--test", pair)
        with opened_prediction(file) as other:
            if other.task.name != tuned.task.name:
                raise InputError("--test", f"{file}: {other.task.name}", f"{tuned.task.name}, as --tune_on has it")
            with opened_case(other, truth, own.mask, own.ignore_border) as (case, name):
                figures = kind.report(case, chosen)
        results.append({"file": file, "output": f"{other.task.name}, tested", "truth": name, **figures})
    return results


def _pair(flag: str, word: str) -> tuple[str, str]:
    """Split PREDICTION:TRUTH; since both may contain colons, the truth is the shortest suffix that exists."""
    from pathlib import Path

    from deepem.io.formats import split_path

    places = [i for i, letter in enumerate(word) if letter == ":" and word[i : i + 3] != "://"]
    pairs = [(word[:i], word[i + 1 :]) for i in reversed(places) if word[:i] and word[i + 1 :]]
    if not pairs:
        raise InputError(flag, word, "PREDICTION:TRUTH")
    there = [pair for pair in pairs if "://" in pair[1] or Path(split_path(pair[1])[0]).exists()]
    return (there or pairs)[0]
