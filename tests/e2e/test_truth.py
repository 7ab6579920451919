"""The truth from end to end: a label on disk, its samples, what the loss asks for, an output file, its segments.

A network that did just what the loss asks for must be segmented into the labels it was trained on. The volume looks
different along every axis and from either end, and its image holds the place of every voxel, so no axis, direction or
offset can be wrong unnoticed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from lab import same_partition
from scipy import ndimage
from torch import nn

from deepem import loss, tasks
from deepem.data import emio, volume
from deepem.data.augment import flip_rotate
from deepem.data.sampler import basic
from deepem.data.transform import Flip
from deepem.io.sink import Hdf5Sink
from deepem.segment import segment
from deepem.test.forward import predict
from deepem.test.kinds import written
from deepem.tools import evaluate
from deepem.tools.evaluate_options import EvaluateOptions
from deepem.tools.predictions import opened_prediction
from deepem.utils.geometry import Box

SIZE = (7, 15, 18)
EDGES = {
    "forward": ((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "backward": ((0, 0, -1), (0, -1, 0), (-1, 0, 0)),
    "mixed": ((1, 0, 0), (0, -1, 0), (0, 0, 1), (0, 0, -3)),
}
GREYS = float(np.prod(SIZE))


def labels() -> np.ndarray:
    """Touching cells of odd shapes, ids above 2**24, and some background."""
    z, y, x = np.indices(SIZE)
    ids = 1 + (x + z > 7) + 2 * (y + x // 3 > 8) + 4 * (z > 2 + (y > 4))
    ids = ids + 2**24
    ids[(y < 3) & (x > 12)] = 0
    return ids


def pieces(ids: np.ndarray) -> np.ndarray:
    """Every connected piece of every label with a name of its own: what a segmentation of a cut-out can know."""
    named, count = np.zeros(ids.shape, int), 0
    for label in np.unique(ids[ids != 0]):
        found, number = ndimage.label(ids == label)
        named[found > 0] = found[found > 0] + count
        count += number
    sizes = np.bincount(named.ravel())
    return np.where(sizes[named] > 1, named, 0)  # a single voxel has no edge


@pytest.fixture
def folder(tmp_path) -> Path:
    """The label, and an image that holds the place of every voxel."""
    emio.imsave(labels().astype(np.uint64), tmp_path / "seg.h5", compress=True)
    emio.imsave(np.arange(GREYS, dtype=np.float32).reshape(SIZE) / np.float32(GREYS), tmp_path / "img.h5")
    return tmp_path


def task(edges) -> tasks.Task:
    """The affinity row for the nearest edges, else the long-range row."""
    nearest = edges == tasks.NEAREST_EDGES
    (row,) = tasks.choose(["aff"] if nearest else ["long"], edges=edges)
    return row


def sampler(folder: Path, row: tasks.Task, patch, augment=None) -> basic.Sampler:
    """Samples of the volume on disk, for one task."""
    arrays = {key: emio.imread(folder / f"{key}.h5") for key in ("img", "seg")}
    data = {"a": volume.compact("a", arrays, tasks.labels([row]), "train")}
    spec = basic.get_spec({"input": (1, *patch)}, tasks.out_spec([row], patch))
    return basic.Sampler(data, spec, True, augment, None)


def wanted(row: tasks.Task, sample) -> np.ndarray:
    """The affinities that training asks for, (E, Z, Y, X); 0.5 where it asks for none.

    The gradient of binary cross-entropy at logit 0 is 1/2 - affinity.
    """
    ids, mask = (torch.from_numpy(sample[key].copy())[None] for key in (row.name, f"{row.name}_mask"))
    logits = torch.zeros(1, row.channels, *ids.shape[2:], requires_grad=True)
    loss.criterion(row)(logits, ids, mask)[0].backward()
    return (0.5 - logits.grad[0]).numpy()


def write(file: Path, row: tasks.Task, affinity: np.ndarray, offset=(0, 0, 0)) -> Path:
    """An output file as forward.py writes it."""
    box = Box.of_size(offset, affinity.shape[1:])
    about = {name: one.attributes(offset, (40, 4, 4)) for name, one in written([row]).items()}
    with Hdf5Sink({row.name: file}, {row.name: len(affinity)}, box, attributes=about) as sink:
        sink.write(box, {row.name: affinity})
    return file


def segments(file: Path) -> np.ndarray:
    """Segments of an output file, from nothing but the file."""
    with opened_prediction(str(file)) as prediction:
        return segment(prediction.array, edges=prediction.edges, decoder="components")


@pytest.mark.parametrize("edges", EDGES.values(), ids=EDGES)
class TestEdges:
    def test_a_whole_volume_comes_back_as_its_labels(self, folder, edges):
        row = task(edges)
        sample = sampler(folder, row, SIZE)(np.random.default_rng(0))
        file = write(folder / "out.h5", row, wanted(row, sample))
        assert same_partition(segments(file), pieces(labels()))
        (result,) = evaluate.score_all([file], EvaluateOptions(truth=str(folder), segment=["none"]))
        assert result["cut_edges"]["average_precision"] == 1

    @pytest.mark.parametrize("axis", [-3, -2, -1])
    def test_under_a_flip(self, folder, edges, axis):
        row = task(edges)
        sample = sampler(folder, row, SIZE, Flip(axis, prob=1))(np.random.default_rng(0))
        file = write(folder / "out.h5", row, wanted(row, sample))
        assert same_partition(segments(file), pieces(np.flip(labels(), axis)))

    def test_patches_in_every_pose(self, folder, edges):
        """Segments of a patch are the labels at the places that its image holds."""
        row = task(edges)
        draw = sampler(folder, row, (5, 9, 11), flip_rotate.get_augmentation(True))
        where = []
        for seed in range(40):
            sample = draw(np.random.default_rng(seed))
            place = np.rint(sample["input"][0] * GREYS).astype(int)
            file = write(folder / "out.h5", row, wanted(row, sample))
            assert same_partition(segments(file), pieces(labels().ravel()[place]))
            where.append(tuple(np.unravel_index(place[0, 0, 1], SIZE)) < tuple(np.unravel_index(place[0, 0, 0], SIZE)))
        assert {True, False} <= set(where)

    def test_stitched_from_patches(self, folder, edges):
        """A network that reads the labels off its image, patch by patch, gives them back for the whole volume."""
        row = task(edges)
        seen = predict(Oracle(row), emio.imread(folder / "img.h5"), patch_size=(4, 8, 9))
        file = write(folder / "out.h5", row, seen[row.name])
        assert same_partition(segments(file), pieces(labels()))

    def test_a_part_lies_where_its_offset_says(self, folder, edges):
        row = task(edges)
        seen = predict(Oracle(row), emio.imread(folder / "img.h5"), patch_size=(5, 8, 9), output_size=(3, 4, 5))
        file = write(folder / "out.h5", row, seen[row.name], offset=(1, 2, 2))
        (result,) = evaluate.score_all([file], EvaluateOptions(truth=str(folder), segment=["none"]))
        assert result["cut_edges"]["average_precision"] == 1


class Oracle(nn.Module):
    """Logits of the affinities that the loss asks for, looked up in the places that the image holds."""

    def __init__(self, row: tasks.Task) -> None:
        super().__init__()
        self.row = row

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        place = torch.round(image * GREYS).long().numpy()
        ids = labels().ravel()[place]
        with torch.enable_grad():
            found = [
                wanted(self.row, {self.row.name: one, f"{self.row.name}_mask": np.ones(one.shape, np.float32)})
                for one in ids
            ]
        return {self.row.name: torch.from_numpy(40 * (np.stack(found) - 0.5))}


def test_edges_read_the_wrong_way_do_not_pass(folder):
    """What these tests are for: a file whose edges are those of another one is not segmented into the labels."""
    row = task(EDGES["backward"])
    sample = sampler(folder, row, SIZE)(np.random.default_rng(0))
    file = write(folder / "out.h5", task(EDGES["forward"]), wanted(row, sample))
    assert not same_partition(segments(file), pieces(labels()))
    (result,) = evaluate.score_all([file], EvaluateOptions(truth=str(folder), segment=["none"]))
    assert result["cut_edges"]["average_precision"] < 0.9
