"""During training: predicts, segments and scores a whole volume, as `deepem forward` and `deepem evaluate` would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from deepem import tasks
from deepem.build import selection, volumes
from deepem.build.cases import Case, Ways
from deepem.build.detector import Detector, find_objects, mask_threshold, without_pasted_masks
from deepem.build.intensity import with_stored_range
from deepem.build.network import PatchSizes
from deepem.build.samplers import gives_items
from deepem.build.scores import KINDS, LOWER_IS_BETTER
from deepem.cli.training import TrainOptions
from deepem.io.stored import Image
from deepem.io.volume import Array
from deepem.scan.grid import resolve_stride
from deepem.scan.inference import predict
from deepem.scan.kinds import is_dense
from deepem.tasks import Task
from deepem.train.evaluation import calibrate
from deepem.train.inputs import Inputs
from deepem.train.logger import Logger
from deepem.train.trainer import Trainer
from deepem.utils.errors import InputError
from deepem.utils.geometry import Box, Vec3, vec3

WAYS = Ways(decoders=("agglomerate",))

OVERLAP = (0.5, 0.5, 0.5)
"""Overlap of patches as a fraction, the default of `deepem forward`."""


@dataclass(frozen=True)
class WholeVolume:
    """A volume that is segmented and scored at intervals during training.

    Attributes:
        name: The volume's id.
        arrays: `img`, labels and masks, (C, Z, Y, X).
        tasks: The tasks that have a label in this volume.
        sizes: The patch sizes.
    """

    name: str
    arrays: Mapping[str, Any]
    tasks: tuple[Task, ...]
    sizes: PatchSizes

    def score(self, trainer: Trainer, log: Logger) -> None:
        """Predict, segment and score the volume, and log the scores and the time it took.

        Workers keep loading samples meanwhile. The training state does not change.
        """
        began = perf_counter()
        probabilities = self._predicted(trainer)
        predicted = perf_counter()
        scores = {
            f"{task.name}/{name}": value
            for task in self.tasks
            for name, value in KINDS[task.kind].brief(self._score(task, probabilities[task.name])).items()
        }
        ended = perf_counter()
        told = f"{self.name}: {predicted - began:.1f} s to predict, {ended - predicted:.1f} s to segment and score"
        log.segment_row(trainer.iteration, scores, ended - began, told)

    def _predicted(self, trainer: Trainer) -> dict[str, Array]:
        """Return the probabilities of each dense output, and the labels (1, Z, Y, X) of each output of objects."""
        objects = [task for task in self.tasks if not is_dense(task)]
        with trainer.evaluating(), without_pasted_masks(trainer.network):
            found: dict[str, Array] = {task.name: self._objects(trainer, task) for task in objects}
            return found if len(objects) == len(self.tasks) else {**self._blended(trainer), **found}

    def _blended(self, trainer: Trainer) -> Mapping[str, Array]:
        return predict(
            trainer.network,
            self.arrays["img"],
            patch_size=self.sizes.input,
            output_size=self.sizes.output,
            overlap=OVERLAP,
            stride=None,
            blend="bump",
            bump="zung",
            edges=None,
            mask_edges=None,
            temperature=None,
            test_aug=None,
            variance=False,
            device=trainer.device,
            batch_size=1,
            amp=trainer.precision.dtype == torch.bfloat16,
            progress=False,
            tasks=self.tasks,
        )

    def _objects(self, trainer: Trainer, task: Task) -> Array:
        image, tile = Image("image", np.asarray(self.arrays["img"])), self.sizes.input
        amp = trainer.precision.dtype == torch.bfloat16
        detect = Detector(trainer.network, task.name, image, trainer.device, amp)
        overlap = vec3(t - s for t, s in zip(tile, resolve_stride(tile, OVERLAP), strict=True))
        return find_objects(detect, image.size, tile, overlap, mask_threshold(trainer.network))[None]

    def _score(self, task: Task, predicted: Array) -> dict[str, Any]:
        """Return the scores of one output."""
        size = vec3(predicted.shape[1:])
        label = next(source for source in task.sources if source in self.arrays)
        truth = self._behind(label, size)
        mask = next((key for key in (f"{label}_msk", "msk") if key in self.arrays), None)
        counts = None if mask is None else self._behind(mask, size)[0] > 0

        def read(array: Array) -> Any:
            return lambda box: array[(slice(None),) * (array.ndim - 3) + box.slices()]

        case = Case(
            self.name, task, task.edges, size, read(predicted), read(truth), label,
            None if counts is None else read(counts),
        )  # fmt: skip
        return KINDS[task.kind].score(case, WAYS)

    def _behind(self, key: str, size: Vec3) -> Array:
        """Return the part of a label or mask that covers the predicted voxels: objects are those of the whole image."""
        front = (0, 0, 0) if size == self.arrays["img"].shape[1:] else self.sizes.front
        z, y, x = Box.of_size(front, size).slices()
        found: Array = self.arrays[key][:, z, y, x]
        return found


def score_whole(trainer: Trainer, inputs: Inputs, log: Logger, whole: WholeVolume | None) -> None:
    """Score a whole volume. All ranks call this; the rank that has the volume scores it while the others wait."""
    if trainer.settings.eval_mode:
        calibrate(trainer, inputs, log)
    if whole is not None:
        whole.score(trainer, log)


def create_whole_volume(
    options: TrainOptions, chosen: Sequence[Task], sizes: PatchSizes, intensity: Mapping[str, Any] | None = None
) -> WholeVolume | None:
    """Return the volume that a run scores at intervals, or None.

    Args:
        options: The options of the run.
        chosen: The tasks of the run.
        sizes: The patch sizes in evaluation.
        intensity: The grey-value ranges of the run, as a checkpoint stores them.

    Raises:
        InputError: the id is unknown, the volume has no label or is smaller than a patch, or `--best_by` lacks a
            volume or a task that gives this score.
    """
    log = options.log
    if log.eval_segment is None:
        if log.best_by in LOWER_IS_BETTER:
            raise InputError("--best_by", f"{log.best_by} without --eval_segment", "the id of a volume to score")
        return None
    name, arrays = _loaded(options, log.eval_segment, chosen, intensity)
    scored = tuple(task for task in chosen if any(source in arrays for source in task.sources))
    if not scored:
        raise InputError("--eval_segment", f"{name}, which has no label", "a volume with one")
    given = {score: task.flag for task in scored for score in KINDS[task.kind].best_by}
    if log.best_by in LOWER_IS_BETTER and log.best_by not in given:
        raise InputError("--best_by", log.best_by, f"loss, or a score of --{scored[0].flag}: {', '.join(given)}")
    if sizes.factor != (1, 1, 1):
        raise InputError("--eval_segment", f"{name}, with an output that is finer than the input", "none")
    if any(n < p for n, p in zip(arrays["img"].shape[1:], sizes.input, strict=True)):
        raise InputError("--eval_segment", f"a volume of {arrays['img'].shape[1:]}", f"a patch or more, {sizes.input}")
    return WholeVolume(name, arrays, scored, sizes)


def _loaded(
    options: TrainOptions, word: str, chosen: Sequence[Task], intensity: Mapping[str, Any] | None
) -> tuple[str, dict[str, Any]]:
    """Return the name of a volume and its arrays, with grey values as the network sees them."""
    folder = Path(options.data.data_dir)
    sets = [selection.DataSet(options.plug_in("dataset", one), folder) for one in options.data.data or ()]
    ref = selection.find(sets, word, "--eval_segment")
    if gives_items(ref.dataset):
        wants = "a volume of a module that offers load_data, such as lightsheet.folder"
        raise InputError("--eval_segment", f"{ref.word} of {ref.dataset.word}, which gives crops", wants)
    loaded = volumes.load([ref], folder, chosen)[ref.word]
    if len(volumes.leaves(loaded)) > 1 or "img" not in loaded:
        raise InputError("--eval_segment", f"{ref.word}, which is several volumes", "an id of one volume")
    ranged = with_stored_range(ref.word, loaded, intensity)
    arrays = volumes.prepared([ref], {ref.word: dict(ranged)}, tasks.labels(chosen), "val", chosen)[ref.word]
    if "intensity" in arrays:
        arrays = {**arrays, "img": arrays["intensity"](np.asarray(arrays["img"]))}
    return ref.word, arrays
