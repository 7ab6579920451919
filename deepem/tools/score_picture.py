"""Draw scores: curves over thresholds, and the worst splits and merges of one volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepem.evaluate import objects
from deepem.evaluate.picture import CutOut, cut_outs, draw
from deepem.segment import segment
from deepem.tools.evaluate_options import EvaluateOptions
from deepem.tools.predictions import laid, opened_case, opened_prediction, opened_there
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3

Array = NDArray[Any]


def draw_results(out: Path, results: Sequence[Mapping[str, Any]], own: EvaluateOptions) -> None:
    """Draw the errors of the last result and the curves of all; reads the volumes of the last into memory.

    Raises:
        InputError: there is nothing to draw.
    """
    curves = {
        f"{name}, {Path(result['file']).stem}" if len(results) > 1 else name: rows
        for result in results
        for name, rows in result.get("curves", {}).items()
    }
    last = results[-1]
    chosen = min(last.get("segmentation", {}).values(), key=lambda row: row["error"], default=None)
    ranked = next((last[name]["ranked"] for name in ("instances", "boxes") if "ranked" in last.get(name, {})), None)
    cuts: list[CutOut] = []
    if "objects" in last:
        cuts = _of_labels(last, own)
    elif chosen is not None:
        cuts = _of_affinities(last, chosen, own)
    elif ranked is None:
        got = f"{last['output']} of {last['file']}"
        wants = "affinities with --segment, a segmentation with --metrics objects, or objects with scores"
        raise InputError("--picture", got, wants)
    title = f"{last['output']}: {last['file']}"
    draw(out, curves=curves, chosen=chosen if curves else None, ranked=ranked, cuts=cuts, title=title)


def _of_labels(result: Mapping[str, Any], own: EvaluateOptions) -> list[CutOut]:
    with ExitStack() as stack:
        stored = stack.enter_context(opened_there(result["file"]))
        truth = stack.enter_context(opened_there(result["truth"]))
        size, offset, whole = stored.size, stored.info.offset, Box((0, 0, 0), stored.size)
        ids, true = stored.read(whole)[0], laid(truth, size, offset, result["file"]).read(whole)[0]
        return cut_outs(result["objects"], ids, true, _image(stack, own, size, offset, result["file"]))


def _of_affinities(result: Mapping[str, Any], chosen: Mapping[str, Any], own: EvaluateOptions) -> list[CutOut]:
    """Return the errors of the reported segmentation, which is computed again."""
    with ExitStack() as stack:
        prediction = stack.enter_context(opened_prediction(result["file"]))
        case, _ = stack.enter_context(opened_case(prediction, result["truth"], own.mask, own.ignore_border))
        given: dict[str, Any] = {"edges": case.edges, "decoder": chosen["decoder"], "threshold": chosen["threshold"]}
        ids, true = segment(case.predicted(case.whole), **given), np.ascontiguousarray(case.truth(case.whole)[0])
        found = objects(ids, true, mask=case.masked(case.whole))
        image = _image(stack, own, prediction.size, prediction.offset, prediction.file)
        return cut_outs(found, ids, true, image)


def _image(stack: ExitStack, own: EvaluateOptions, size: Vec3, offset: Vec3, file: str) -> Array | None:
    if own.image is None:
        return None
    behind = laid(stack.enter_context(opened_there(own.image)), size, offset, file)
    found: Array = behind.read(Box((0, 0, 0), size))[0]
    return found
