"""Score the outputs of deepem forward against the truth.

    deepem evaluate experiments/E/forward/t1_affinity_1000.h5 --truth data/t1

Affinities: average precision of the cut edges (which are few; chance is their share), and adapted Rand error and
variation of information of simple segmentations. Classes that exclude each other: precision, recall and intersection
over union of each. Other outputs: area under the ROC curve and F1. A prediction is laid over the truth by its
attributes, and refused where they do not fit.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from deepem import tasks
from deepem.data import emio, target
from deepem.tools import output, scoring
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3

METHODS = ("components", "waterz", "both", "none")
COMPONENTS_AT = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)
WATERZ_AT = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True)
class Prediction:
    """An output of deepem forward: (C, Z, Y, X) probabilities or (1, Z, Y, X) classes, and what its attributes say."""

    file: Path
    array: scoring.Array
    task: tasks.Task
    edges: tuple[Vec3, ...]
    offset: Vec3
    voxel_size_nm: tuple[float, ...] | None
    classes: bool = False

    @classmethod
    def read(cls, file: Path) -> Prediction:
        """Read a file, and refuse one whose attributes do not describe it."""
        array, held = emio.imread(file), attributes(file)
        classes = held.get("values") == "class"
        array = array / np.float32(255) if array.dtype == np.uint8 and not classes else array
        for name in ("axes", "offset", "tasks"):
            if name not in held:
                raise InputError(file, f"no attribute {name}", "an output of deepem forward")
        if array.ndim != 4 or held["axes"] != "czyx":
            raise InputError(file, f"axes {held['axes']!r} of shape {array.shape}", "axes 'czyx', four of them")
        flags = held["tasks"]
        own = [tasks.from_plain(row) for row in held.get("rows", ())]
        rows = [task for task in own or tasks.TASKS if task.flag in flags]
        if len(flags) != 1 or len(rows) != 1:
            raise InputError(file, f"tasks {flags}", f"one of {[task.flag for task in tasks.TASKS]}")
        edges = tuple(vec3(edge) for edge in held.get("edges", ()))
        if tasks.KINDS[rows[0].kind].edges and len(edges) != len(array):
            raise InputError(file, f"{len(edges)} edges for {len(array)} channels", "one edge per channel")
        size = held.get("voxel_size_nm")
        voxel = None if size is None else tuple(map(float, size))
        return cls(file, array, rows[0], edges, vec3(held["offset"]), voxel, classes)

    def crop(self, volume: scoring.Array, file: Path) -> scoring.Array:
        """The part of a volume (Z, Y, X) or (C, Z, Y, X) that the prediction covers."""
        if volume.ndim not in (3, 4):
            raise InputError(file, f"a volume of shape {volume.shape}", "(Z, Y, X) or (C, Z, Y, X)")
        covered, whole = Box.of_size(self.offset, self.array.shape[1:]), Box((0, 0, 0), volume.shape[-3:])
        if not whole.contains(covered):
            raise InputError(
                self.file, f"voxels {covered.begin} to {covered.end}", f"a place in {file}, of size {whole.size}"
            )
        inside = (..., *covered.slices())
        return volume[inside]


def attributes(file: Path) -> dict[str, Any]:
    """Attributes of an HDF5 file's main dataset, bytes and JSON decoded; none for other files."""
    if file.suffix not in emio.SUFFIXES["hdf5"]:
        return {}
    with h5py.File(file, "r") as top:
        held = {**top.attrs, **(top[emio.MAIN].attrs if emio.MAIN in top else {})}
    return {name: _plain(value) for name, value in held.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        return json.loads(value) if value[:1] in ("[", "{") else value
    values = value.tolist() if hasattr(value, "tolist") else value
    return [_plain(v) for v in values] if isinstance(values, list) else values


def truth_of(prediction: Prediction, truth: Path) -> tuple[scoring.Array, str, Path]:
    """The volume that a prediction is scored against, (C, Z, Y, X) cropped to it; which label it is, and its file.

    `truth` is that file, or a folder of <label>.h5.
    """
    label = prediction.task.source
    if truth.is_dir():
        suffixes = [suffix for kind in emio.SUFFIXES.values() for suffix in kind]
        names = [(label, truth / f"{label}{suffix}") for label in prediction.task.sources for suffix in suffixes]
        there = [(label, file) for label, file in names if file.exists()]
        if not there:
            wanted = " or ".join(f"{label}.h5" for label in prediction.task.sources)
            raise InputError(truth, f"no {wanted}", f"the truth of {prediction.file}")
        label, truth = there[0]
    whole = emio.imread(truth)
    here, size = prediction.voxel_size_nm, attributes(truth).get("voxel_size_nm")
    if here and size is not None and not np.allclose(here, size):
        raise InputError(prediction.file, f"voxels of {list(here)} nm", f"those of {truth}, {size} nm")
    volume = prediction.crop(whole, truth)
    return (volume if volume.ndim == 4 else volume[None]), label, truth


def mask_of(prediction: Prediction, file: Path) -> scoring.Array:
    """The mask (Z, Y, X) over a prediction; a file may have an axis of one channel, as the truth may."""
    mask = prediction.crop(emio.imread(file), file)
    if mask.ndim == 4 and len(mask) != 1:
        raise InputError(file, f"{len(mask)} channels", "one: a mask holds for all channels of the prediction")
    return mask[0] if mask.ndim == 4 else mask


def score_affinity(
    prediction: Prediction, volume: scoring.Array, label: str, mask: scoring.Array | None, method: str
) -> dict[str, Any]:
    """Cut edges and segmentations of an affinity output."""
    ids = volume[0]
    ranked = {
        edge: scoring.cut_edges(channel, edge, ids, mask)
        for channel, edge in zip(prediction.array, prediction.edges, strict=True)
    }
    precision = {edge: r.average_precision() for edge, r in ranked.items()}
    result: dict[str, Any] = {
        "cut_edges": {
            "average_precision": float(np.mean(list(precision.values()))),
            "by_edge": {_text(edge): value for edge, value in precision.items()},
            "share": {_text(edge): r.share for edge, r in ranked.items()},
        },
        "segmentation": {},
    }
    size = prediction.voxel_size_nm or (1, 1, 1)
    if method in ("components", "both"):
        swept = scoring.by_components(prediction.array, prediction.edges, COMPONENTS_AT, size)
        result["segmentation"]["components"] = best(swept, ids, mask)
    if method in ("waterz", "both") and scoring.hold_nearest(prediction.edges):
        agglomerated = scoring.by_waterz(prediction.array, prediction.edges, WATERZ_AT)
        result["segmentation"]["waterz"] = best(agglomerated, ids, mask)
    return result


def best(swept: Any, ids: scoring.Array, mask: scoring.Array | None) -> dict[str, float]:
    """The agreement at the threshold with the lowest adapted Rand error, which the truth has chosen."""
    rows = [{"threshold": t, **asdict(scoring.agreement(found, ids, mask))} for t, found in swept]
    return min(rows, key=lambda row: (np.nan_to_num(row["are"], nan=9), row["split"] + row["merge"]))


def score_binary(
    prediction: Prediction, volume: scoring.Array, label: str, mask: scoring.Array | None, method: str
) -> dict[str, Any]:
    """ROC and F1 per channel of a binary output."""
    truth = events(prediction, volume, label)
    channels = {}
    for i, (scores, event) in enumerate(zip(prediction.array, truth, strict=True)):
        counts = np.ones(scores.shape, bool) if mask is None else mask > 0
        ranking = scoring.Ranking.of(scores[counts], event[counts] > 0)
        f1, threshold = ranking.best_f1()
        channels[str(i)] = {
            "auc": ranking.auc(),
            "average_precision": ranking.average_precision(),
            "f1_best": f1,
            "f1_best_threshold": threshold,
            "f1_at_0.5": ranking.f1_at(0.5),
            "share": ranking.share,
        }
    return {"channels": channels}


def score_semantic(
    prediction: Prediction, volume: scoring.Array, label: str, mask: scoring.Array | None, method: str
) -> dict[str, Any]:
    """Precision, recall and IoU per class, and their means over the classes that there are."""
    task, where = prediction.task, str(prediction.file)
    target.check_channels(where, task, 1, volume)
    target.check_classes(where, task, task.channels - 1, volume, None if mask is None else mask[None])
    counts = scoring.confusion(classes_of(prediction), volume[0], task.channels, mask)
    rows = scoring.by_class(counts)
    there = [row for row in rows if row["share"] > 0]
    names = ("precision", "recall", "iou") if there else ()  # a class that is never called has a precision of 0 there
    mean = {name: float(np.mean(np.nan_to_num([row[name] for row in there]))) for name in names}
    accuracy = float(np.trace(counts) / counts.sum()) if counts.any() else scoring.NAN
    return {"classes": {str(c): row for c, row in enumerate(rows)}, "mean": mean, "accuracy": accuracy}


def classes_of(prediction: Prediction) -> scoring.Array:
    """The class of each voxel, (Z, Y, X)."""
    found: scoring.Array = prediction.array[0] if prediction.classes else prediction.array.argmax(0)
    return found


Score = Callable[[Prediction, scoring.Array, str, scoring.Array | None, str], dict[str, Any]]

SCORES: dict[str, Score] = {"affinity": score_affinity, "binary": score_binary, "semantic": score_semantic}
"""One entry per kind of `deepem.tasks`: (prediction, volume (C, Z, Y, X), its label, mask, --segment) -> figures."""


def _text(edge: Vec3) -> str:
    return ",".join(map(str, edge))


def table(result: dict[str, Any]) -> str:
    """A result as lines to read."""
    lines = [f"{result['output']}  ({result['file']}, against {result['truth']})"]
    for name, row in result.get("channels", {}).items():
        lines += [
            f"  channel {name}    ROC AUC {row['auc']:.4f}    average precision {row['average_precision']:.4f} "
            f"(chance {row['share']:.4f})",
            f"               F1 {row['f1_best']:.4f} at threshold {row['f1_best_threshold']:.3f}, the best;   "
            f"{row['f1_at_0.5']:.4f} at 0.5",
        ]
    for name, row in result.get("classes", {}).items():
        lines.append(
            f"  class {name:<3}    precision {row['precision']:.4f}   recall {row['recall']:.4f}   "
            f"IoU {row['iou']:.4f}   (share {row['share']:.4f})"
        )
    if mean := result.get("mean"):
        lines.append(
            f"  mean         precision {mean['precision']:.4f}   recall {mean['recall']:.4f}   "
            f"IoU {mean['iou']:.4f}   (of classes that are there; accuracy {result['accuracy']:.4f})"
        )
    if cut := result.get("cut_edges"):
        lines.append(f"  cut edges    average precision {cut['average_precision']:.4f}, the mean over edges")
        shares = cut["share"]
        lines += [f"    {edge:>9}  {at:.4f}  (chance {shares[edge]:.4f})" for edge, at in cut["by_edge"].items()]
    for name, row in result.get("segmentation", {}).items():
        lines.append(
            f"  {name:<12} adapted Rand error {row['are']:.4f}   VOI split {row['split']:.3f} merge {row['merge']:.3f} "
            f"bits   ({row['segments']} segments at {row['threshold']}, the best threshold)"
        )
    return "\n".join(lines)


def without_nan(value: Any) -> Any:
    """The same with None for what is undefined, which JSON has no number for."""
    if isinstance(value, dict):
        return {key: without_nan(v) for key, v in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def main(words: Sequence[str]) -> int:
    """Read the command line and score."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("deepem evaluate", description=__doc__, formatter_class=as_written)
    parser.add_argument("predictions", nargs="+", type=Path, metavar="PREDICTION", help="HDF5 output of deepem forward")
    parser.add_argument("--truth", required=True, type=Path, help="label volume, or folder with seg.h5, mit.h5, ...")
    parser.add_argument("--mask", type=Path, help="volume that is 0 where nothing counts")
    parser.add_argument(
        "--segment", choices=("auto", *METHODS), default="auto",
        help="how affinities become segments; auto: components, and waterz too where it is installed",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args(words)
    with output.errors_of(parser.prog):
        if options.json:
            output.check_file("--json", options.json)
        results = score_all(options.predictions, options.truth, options.mask, options.segment)
        output.say("\n\n".join(map(table, results)))
        if options.json:
            text = json.dumps(without_nan({"predictions": results})["predictions"], indent=2)
            with output.writing("--json", options.json):
                options.json.write_text(f"{text}\n")
    return 0


def score_all(
    files: Sequence[Path], truth: Path, mask: Path | None = None, method: str = "auto"
) -> list[dict[str, Any]]:
    """Everything that is measured on each prediction, what --json writes."""
    if method == "auto":
        method = "both" if importlib.util.find_spec("waterz") else "components"
    return [score(Prediction.read(file), truth, mask, method) for file in files]


def score(prediction: Prediction, truth: Path, mask: Path | None, method: str) -> dict[str, Any]:
    """Everything that is measured on one prediction."""
    volume, label, file = truth_of(prediction, truth)
    counts = None if mask is None else mask_of(prediction, mask)
    of_kind = SCORES[prediction.task.kind](prediction, volume, label, counts, method)
    return {"file": str(prediction.file), "output": prediction.task.name, "truth": str(file), **of_kind}


def events(prediction: Prediction, volume: scoring.Array, label: str) -> scoring.Array:
    """What the channels of a binary output should call, (C, Z, Y, X), made from a label as in training."""
    if label == prediction.task.fallback:
        return target.boundary(volume, target.instances_touch(volume))
    target.check_channels(str(prediction.file), prediction.task, len(prediction.array), volume)
    return target.binary(volume, len(prediction.array))
