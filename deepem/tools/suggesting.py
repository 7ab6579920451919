"""Rank the boxes of a volume and write the chosen ones; see `deepem suggest`."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from deepem.build.loading import load
from deepem.data.dataset import annotated
from deepem.evaluate import uncertainty
from deepem.io.files import imsave, opened, opened_image
from deepem.io.stored import Image, Stored
from deepem.segment import segment
from deepem.tasks import KINDS, TASKS, Task
from deepem.tools.suggest import SuggestOptions
from deepem.utils.errors import InputError
from deepem.utils.files import write_text
from deepem.utils.geometry import Box, vec3
from deepem.utils.provenance import provenance

Array = Any


def suggest(image: str, own: SuggestOptions) -> Iterator[str]:
    """Choose and write the cut-outs of the next round; yields one line for each.

    Raises:
        InputError: the files do not fit together, or no box is free.
    """
    folder = Path(own.out)
    number = max(annotated.rounds(folder), default=0) + 1
    with ExitStack() as stack:
        source = stack.enter_context(opened_image(image))
        files = [stack.enter_context(opened(path)) for path in own.predictions]
        for path, file in zip(own.predictions, files, strict=True):
            _require_over(path, file, source, image)
        covered = Box.of_size(files[0].info.offset, files[0].size)
        boxes = [box.shift(covered.begin) for box in uncertainty.candidates(covered.size, own.size)]
        before = [row for n in annotated.rounds(folder) for row in annotated.rows_of(folder, n)]
        taken = [Box.of_size(row["offset"], row["size"]) for row in before if row.get("image", image) == image]
        scores = _scores(own, files, boxes, covered)
        rows = _features(own, source, files, boxes, covered, scores) if own.diverse and own.by != "grid" else None
        unit = source.voxel_size_nm or (1.0, 1.0, 1.0)
        chosen = uncertainty.choose(
            scores, boxes, own.count, taken=taken, distance=own.distance, features=rows, voxel_size=unit
        )
        if not chosen:
            raise InputError("size", own.size, f"boxes that fit {len(taken)} times and more into {covered.size} voxels")
        cutouts = []
        for n, index in enumerate(chosen):
            name = f"r{number}_{n:03}"
            row = _write(folder / name, source, own.predictions, files, boxes[index], own)
            cutouts.append(
                {"id": name, "image": image, "score": float(scores[index]), **row, **_link(image, boxes[index])}
            )
            yield f"{folder / name}: at {','.join(map(str, boxes[index].begin))}, {own.by} {scores[index]:.4g}"
    manifest = {
        "round": number, "image": image, "predictions": list(own.predictions), "by": own.by, "seed": own.seed,
        "candidates": len(boxes), "cutouts": cutouts, "provenance": provenance(own.seed),
    }  # fmt: skip
    write_text(folder / f"round{number}.json", json.dumps(manifest, indent=2) + "\n")


def _require_over(path: str, file: Stored, source: Image, image: str) -> None:
    """Refuse a prediction that extends beyond the image."""
    whole = Box.of_size((0, 0, 0), source.size)
    covered = Box.of_size(file.info.offset, file.size)
    if not whole.contains(covered):
        raise InputError(path, f"voxels {covered.begin} to {covered.end}", f"a place in {image}, of size {source.size}")


def _probabilities(file: Stored, box: Box) -> Array:
    array = file.read(box)
    return array / np.float32(255) if array.dtype == np.uint8 else np.asarray(array, np.float32)


def _entropy(own: SuggestOptions, parts: Sequence[Array], files: Sequence[Stored]) -> Array:
    task = _task_of(own.predictions[0])
    return uncertainty.entropy(parts[0], classes=task is not None and KINDS[task.kind].classes)


def _variance(own: SuggestOptions, parts: Sequence[Array], files: Sequence[Stored]) -> Array:
    name = own.predictions[-1]
    if "_var_" not in Path(name).name and not Path(name).stem.endswith("_var"):
        raise InputError("predictions", name, "the variance too: deepem forward --test_aug ... --variance writes it")
    return parts[-1].mean(0)


def _disagreement(own: SuggestOptions, parts: Sequence[Array], files: Sequence[Stored]) -> Array:
    if len(parts) < 2:
        raise InputError("predictions", own.predictions[0], "two or more for --by disagreement")
    return uncertainty.disagreement(parts)


def _segments(own: SuggestOptions, parts: Sequence[Array], files: Sequence[Stored]) -> Array:
    decoder = "agglomerate" if len(parts[0]) >= 3 else "objects"
    low, high = (segment(parts[0], decoder=decoder, threshold=t) for t in own.thresholds)
    return uncertainty.split_or_joined(low, high)


MEASURES: dict[str, Callable[[SuggestOptions, Sequence[Array], Sequence[Stored]], Array]] = {
    "entropy": _entropy,
    "variance": _variance,
    "disagreement": _disagreement,
    "segments": _segments,
}


def _scores(own: SuggestOptions, files: Sequence[Stored], boxes: Sequence[Box], covered: Box) -> list[float]:
    if own.by == "random":
        return [float(score) for score in np.random.default_rng(own.seed).random(len(boxes))]
    if own.by == "grid":
        return _grid(len(boxes), own.count)
    scores = []
    for box in boxes:
        inner = box.shift(-b for b in covered.begin)
        scores.append(float(MEASURES[own.by](own, [_probabilities(file, inner) for file in files], files).mean()))
    return scores


def _grid(boxes: int, count: int) -> list[float]:
    """Return scores that rank boxes at regular intervals first."""
    step = max(boxes // count, 1)
    return [float(n % step == 0) for n in range(boxes)]


def _features(
    own: SuggestOptions,
    source: Image,
    files: Sequence[Stored],
    boxes: Sequence[Box],
    covered: Box,
    scores: Sequence[float],
) -> Array | None:
    """Return (N, F) features of the boxes, computed only for the best scores; the others stay 0."""
    if own.by == "random":
        return None
    upper = np.argsort(-np.asarray(scores), kind="stable")[: 12 * own.count]
    extract = _network_features(own.checkpoint) if own.checkpoint else None
    rows: dict[int, Array] = {}
    for index in upper:
        box = boxes[index]
        image = np.asarray(source.read(box), np.float32)
        if extract is not None:
            rows[int(index)] = extract(image / 255 if image.max() > 1 else image)
            continue
        parts = [image, *(_probabilities(file, box.shift(-b for b in covered.begin)) for file in files)]
        rows[int(index)] = np.concatenate([[part.mean(), part.std()] for array in parts for part in array])
    made = uncertainty.standardised(rows)
    features = np.zeros((len(boxes), made.shape[1]))
    features[list(rows)] = made
    return features


def _network_features(checkpoint: str) -> Callable[[Array], Array]:
    """Return a function from an image (C, Z, Y, X) in [0, 1] to the spatial mean of the coarsest features."""
    import torch

    network = load(checkpoint)
    found: list[torch.Tensor] = []

    def keep(module: object, given: object, result: object) -> None:
        if isinstance(result, torch.Tensor) and result.ndim == 5:
            found.append(result.mean((2, 3, 4)) * 1.0)
            sizes.append(result[0, 0].numel())

    sizes: list[int] = []
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(keep)

    def extract(image: Array) -> Array:
        found.clear()
        sizes.clear()
        with torch.inference_mode():
            network(torch.from_numpy(np.ascontiguousarray(image))[None])
        coarsest = max(i for i, size in enumerate(sizes) if size == min(sizes))
        return found[coarsest][0].numpy().astype(float)

    return extract


def _write(
    folder: Path, source: Image, paths: Sequence[str], files: Sequence[Stored], box: Box, own: SuggestOptions
) -> Mapping[str, Any]:
    """Write a cut-out with its context and drafts, and return its position for the manifest."""
    begin = vec3(max(b - c, 0) for b, c in zip(box.begin, own.context, strict=True))
    end = vec3(min(e + c, n) for e, c, n in zip(box.end, own.context, source.size, strict=True))
    around = Box(begin, end)
    said = {"axes": "zyx", "offset": list(begin)}
    if source.voxel_size_nm:
        said["voxel_size_nm"] = list(source.voxel_size_nm)
    image = source.read(around)
    imsave(image[0] if len(image) == 1 else image, folder / "img.h5", attributes=said)
    for path, file in zip(paths, files, strict=True):
        where = Box.of_size(file.info.offset, file.size)
        both = around.intersect(where)
        if both is None:
            continue
        held = _probabilities(file, both.shift(-b for b in where.begin))
        draft = np.zeros((len(held), *around.size), np.float32)
        inside = (slice(None), *both.shift(-b for b in begin).slices())
        draft[inside] = held
        imsave(draft, folder / f"prediction_{Path(path).stem}.h5", compress=True, attributes={**said, "axes": "czyx"})
        if task := _task_of(path):
            imsave(_draft(task, draft), folder / f"draft_{task.source}.h5", compress=True, attributes=said)
    context = [b - a for a, b in zip(begin, box.begin, strict=True)]
    return {"offset": list(box.begin), "size": list(box.size), "context": context, "corner": list(begin)}


def _task_of(path: str) -> Task | None:
    """Return the task of an output file, by the file's name; None for a variance."""
    name = Path(path).name
    return next((task for task in TASKS if f"_{task.name}_" in name and "_var" not in name), None)


def _draft(task: Task, probabilities: Array) -> Array:
    """Turn a prediction into draft labels to correct."""
    if task.source == "seg":
        return segment(probabilities, edges=task.edges or None).astype(np.uint32)
    if KINDS[task.kind].classes:
        return probabilities.argmax(0).astype(np.uint8)
    return (probabilities > 0.5).astype(np.uint8)[0 if len(probabilities) == 1 else slice(None)]


def _link(image: str, box: Box) -> Mapping[str, str]:
    """Return a neuroglancer link to the cut-out if the image is in a cloud, else nothing."""
    if "://" not in image:
        return {}
    z, y, x = ((b + e) / 2 for b, e in zip(box.begin, box.end, strict=True))
    state = {"layers": [{"type": "image", "name": "img", "source": f"precomputed://{image}"}], "position": [x, y, z]}
    return {"neuroglancer": "https://neuroglancer-demo.appspot.com/#!" + urllib.parse.quote(json.dumps(state))}
