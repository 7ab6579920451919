"""Objects of a volume of any size: the label volume and the table that `deepem forward` writes."""

from __future__ import annotations

import csv
import json

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import Lab, same_partition

from deepem.blocks.folder import Folder
from deepem.build.detector import find_objects
from deepem.data.synth.nuclei import make_nuclei
from deepem.evaluate import instances
from deepem.test.found import pack, unpack, write_table
from deepem.test.objects import Objects, block_of
from deepem.utils import checkpoint
from deepem.utils.geometry import Box

ORACLE = '''
"""Finds the cuboids of one grey value each, exactly; what it has seen is in SEEN."""
import torch
from torch import nn

SEEN = []

class Oracle(nn.Module):
    def __init__(self, spec):
        super().__init__()
        self.spec, self.nothing = spec, nn.Parameter(torch.zeros(1))

    def forward(self, x):
        SEEN.append(x.clone())
        found = {"instance": [self.of(one[0]) for one in x]}
        return found | {n: x.expand(-1, s[-4], -1, -1, -1) for n, s in self.spec.items() if n != "instance"}

    def of(self, image):
        grey = (image * 255).round()
        boxes, labels, scores = [], [], []
        for value in grey.unique().tolist():
            if value > 0:
                at = (grey == value).nonzero()
                boxes.append([*at.amin(0).tolist(), *(at.amax(0) + 1).tolist()])
                labels.append(1 + int(value) % 2)
                scores.append(1 - value / 512)
        return {"boxes": torch.tensor(boxes).reshape(-1, 6).float(), "labels": torch.tensor(labels),
                "scores": torch.tensor(scores), "mask_probs": torch.ones(len(boxes), 1, 1, 1)}

    def losses(self, batch):
        return {"nothing": (self.nothing.sum(), 1)}

def create_model(*, in_spec, out_spec):
    return Oracle(out_spec)
'''


def cuboids(size, count, longest=8, seed=0):
    """A uint8 volume of cuboids of one grey value each, which do not overlap; some touch."""
    rng = np.random.default_rng(seed)
    volume, value = np.zeros(size, np.uint8), 0
    while value < count:
        side = rng.integers(2, longest + 1, 3)
        begin = rng.integers(0, np.array(size) - side + 1)
        inside = tuple(slice(b, b + s) for b, s in zip(begin, side, strict=True))
        if not volume[inside].any():
            value += 1
            volume[inside] = value
    return volume


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A lab with a run `exp` of the oracle and the volume `t` of cuboids."""
    monkeypatch.chdir(tmp_path)
    lab = Lab(tmp_path)
    (tmp_path / "oracle.py").write_text(ORACLE)
    options = {"model": str(tmp_path / "oracle.py"), "fov": [16, 20, 24], "inst": 1.0, "inst_classes": 2}
    options |= {"inputsz": [16, 20, 24], "outputsz": [16, 20, 24]}
    lab.truth = cuboids((40, 50, 60), 60)
    path = tmp_path / "data/t/img.h5"
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["main"] = lab.truth
        file["main"].attrs.update({"voxel_size_nm": (284.0, 127.0, 127.0)})

    def save(**more):
        weights = {"nothing": __import__("torch").zeros(1)}
        checkpoint.write(lab.models("exp") / "model7.chkpt", {"iter": 7, "state_dict": weights, "optimizer": {},
                                                              "options": options | more})  # fmt: skip

    save()
    lab.again = save
    own = ("--model", options["model"], "--data_dir", "data", "--test_ids", "t", "--overlap", "8,8,8")
    lab.predict = lambda *words: lab.forward(*own, *words)
    return lab


def volume(lab, name="t_instance_7"):
    return lab.output(name)


def rows(lab, name="t_instance_7"):
    with open(lab.cwd / "experiments/exp/forward" / f"{name}.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_every_object_is_found_once_and_has_a_row(lab):
    lab.predict()
    assert lab.files()[:2] == ["t_instance_7.csv", "t_instance_7.h5"]
    labels = volume(lab)
    assert labels.dtype == np.uint32
    assert same_partition(labels, lab.truth)
    table = rows(lab)
    assert [row["id"] for row in table] == list(range(1, 61))
    for row in table:
        at = np.argwhere(labels == row["id"])
        value = int(lab.truth[tuple(at[0])])
        assert row["class"] == 1 + value % 2
        assert row["score"] == pytest.approx(1 - value / 512, abs=1e-6)
        assert [row[k] for k in ("z1", "y1", "x1", "z2", "y2", "x2")] == [*at.min(0), *(at.max(0) + 1)]
        assert row["voxels"] == len(at)
        assert [row[k] for k in "zyx"] == pytest.approx(at.mean(0), rel=1e-5)


def test_the_volume_says_what_it_is(lab):
    lab.predict()
    with h5py.File(lab.cwd / "experiments/exp/forward/t_instance_7.h5") as file:
        held = dict(file["main"].attrs)
    assert held["axes"] == "zyx"
    assert held["voxel_size_nm"].tolist() == [284, 127, 127]
    assert held["offset"].tolist() == [0, 0, 0]
    assert held["source"] == "data/t/img.h5"
    assert held["values"] == "label"
    assert json.loads(held["rows"])[0]["flag"] == "inst"


@pytest.mark.parametrize("words", [("--inputsz", "40,50,60"), ("--inputsz", "64,20,24"), ("--inputsz", "18,22,19")])
def test_any_tile_that_sees_whole_objects_gives_the_same_objects(lab, words):
    lab.predict(*words)
    assert same_partition(volume(lab), lab.truth)


def test_the_network_sees_the_voxels_as_they_are_in_every_tile(lab):
    lab.predict()
    import sys

    (oracle,) = [m for m in sys.modules.values() if getattr(m, "__file__", "") == str(lab.folder / "oracle.py")]
    grid = Objects(Folder("parts"), (40, 50, 60), (16, 20, 24), (8, 8, 8), (64, 64, 64)).grid
    assert len(oracle.SEEN) == len(grid)
    for image, tile in zip(oracle.SEEN, grid, strict=True):
        assert np.array_equal(image[0, 0].numpy(), lab.truth[tile.box.slices()] / np.float32(255))
    oracle.SEEN.clear()


def test_killed_and_restarted_it_gives_the_same_bytes(lab, monkeypatch):
    folder = lab.cwd / "experiments/exp/forward"
    lab.predict()
    whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for path in folder.iterdir():
        path.unlink()
    for step, calls in (("find", 5), ("merge", 1), ("count", 1), ("number", 1), ("labels", 1)):
        make, left = getattr(Objects, step), [calls]

        def killed(self, *words, make=make, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            made = make(self, *words)
            if not left[0]:
                raise KeyboardInterrupt
            return made

        with monkeypatch.context() as patch:
            patch.setattr(Objects, step, killed)
            with pytest.raises(KeyboardInterrupt):
                lab.predict()
        assert not (folder / "t_instance_7.h5").exists()
        assert (folder / ".t_instance_7.parts").is_dir()
    lab.predict()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_what_another_run_has_left_is_not_taken(lab, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Objects, "merge", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lab.predict()
    with h5py.File("data/t/img.h5", "r+") as file:
        file["main"][...] = lab.truth[::-1]
    lab.predict()
    assert same_partition(volume(lab), lab.truth[::-1])


def test_dense_outputs_are_written_beside_it(lab):
    lab.again(mit=1.0)
    lab.predict()
    assert [name for name in lab.files() if name.endswith(".h5")] == ["t_instance_7.h5", "t_mitochondria_7.h5"]
    assert same_partition(volume(lab), lab.truth)
    expected = 1 / (1 + np.exp(lab.truth / -255.0))
    assert np.allclose(volume(lab, "t_mitochondria_7")[0], expected, atol=1e-5)


def test_a_volume_without_objects_gives_no_rows(lab):
    with h5py.File("data/t/img.h5", "r+") as file:
        file["main"][...] = 0
    lab.predict()
    assert not volume(lab).any()
    assert rows(lab) == []


@pytest.mark.parametrize(("words", "told"), [
    (("--test_aug", "0", "1"), "--test_aug: got together with --inst, wants one of them: objects are not blended"),
    (("--gs_output", "file://nowhere"), "wants --test_ids without --gs_output"),
])  # fmt: skip
def test_what_cannot_be_done_with_objects_is_refused(lab, capsys, words, told):
    with pytest.raises(SystemExit) as caught:
        lab.predict(*words)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err
    assert lab.files() == []


SHIFT = np.array((5, 0, 0))


def balls(size, count, seed):
    rng, at, labels = np.random.default_rng(seed), np.indices(size), np.zeros(size, np.int64)
    for label in range(1, count + 1):
        centre, radius = rng.integers(0, size), rng.integers(2, 5)
        labels[((at - centre[:, None, None, None]) ** 2).sum(0) < radius**2] = label
    return labels


def detect_in(truth):
    """What a perfect detector finds in a box of a volume of labels."""
    import torch

    def detect(box):
        part = truth[box.slices()]
        names = np.unique(part[part > 0])
        boxes, masks = [], []
        for name in names:
            at = np.argwhere(part == name)
            low, high = at.min(0), at.max(0) + 1
            boxes.append([*low, *high])
            mask = part[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] == name
            masks.append(torch.from_numpy(mask).float())
        return {"boxes": torch.tensor(np.array(boxes).reshape(-1, 6)).float(), "mask_probs": Stack(masks),
                "labels": torch.ones(len(names)), "scores": torch.tensor(names / 100)}  # fmt: skip

    return detect


class Stack(list):
    """Masks of several sizes."""

    def cpu(self):
        return self


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), data=st.data())
def test_the_order_of_tiles_and_of_blocks_does_not_matter(tmp_path_factory, seed, data):
    truth = balls((20, 24, 28), 12, seed)
    results = []
    for order in (False, True):
        objects = Objects(Folder(str(tmp_path_factory.mktemp("parts"))), truth.shape, (16, 15, 17), (9, 9, 9),
                          (7, 24, 11) if order else (20, 24, 28))  # fmt: skip
        numbers = list(range(len(objects.grid)))
        for number in data.draw(st.permutations(numbers)) if order else numbers:
            objects.find(number, detect_in(truth))
        objects.merge()
        blocks = list(range(len(objects.blocks)))
        for number in reversed(blocks) if order else blocks:
            objects.count(number)
        objects.number()
        labels = np.zeros(truth.shape, objects.dtype)
        for number in blocks:
            box, part = objects.labels(number)
            labels[box.slices()] = part
        results.append((labels, list(objects.rows(SHIFT))))
    assert np.array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    in_memory = find_objects(detect_in(truth), truth.shape, (16, 15, 17), (9, 9, 9))
    assert np.array_equal(in_memory, results[0][0])
    assert instances(results[0][0], truth)["ap"][0.5] == 1
    seen = np.unique(results[0][0])
    assert seen[seen > 0].tolist() == list(range(1, len(results[0][1]) + 1))
    for row in results[0][1]:
        at = np.argwhere(results[0][0] == row[0]) + SHIFT
        assert row[3:9] == (*at.min(0), *(at.max(0) + 1))
        assert row[9] == len(at)
        assert row[10:] == pytest.approx(tuple(at.mean(0)))


@pytest.mark.parametrize("side", [128, pytest.param(256, marks=pytest.mark.slow)])
def test_touching_nuclei_of_a_large_volume_are_found_once_each(tmp_path, side):
    size = (side // 2, side, side)
    truth = make_nuclei("n1", size)["seg"].astype(np.int64)
    objects = Objects(Folder(str(tmp_path)), size, (48, 96, 96), (28, 48, 48), block_of(size))
    for number in range(len(objects.grid)):
        objects.find(number, detect_in(truth))
    objects.merge()
    labels = np.zeros(size, np.int64)
    for number in range(len(objects.blocks)):
        objects.count(number)
    count = objects.number()
    for number in range(len(objects.blocks)):
        box, part = objects.labels(number)
        labels[box.slices()] = part
    found = instances(labels, truth)
    assert count == found["predicted"]
    assert found["recall"] >= 0.98
    assert found["precision"] >= 0.98


def test_objects_are_the_same_behind_bytes():
    truth = balls((20, 24, 28), 9, 3)
    objects = Objects(Folder("nowhere"), truth.shape, truth.shape, (0, 0, 0), block_of(truth.shape))
    assert objects.touching(Box((0, 0, 0), (1, 1, 1))) == [0]
    from deepem.models.detection.tiles import handed_on

    found = handed_on(3, objects.grid[0], truth.shape, detect_in(truth)(objects.grid[0].box))
    again = unpack(3, pack(found))
    assert len(again) == len(found) > 3
    for one, other in zip(found, again, strict=True):
        assert (one.key, one.box, one.score, one.label, one.owned, one.cut) == (
            other.key, other.box, other.score, other.label, other.owned, other.cut)  # fmt: skip
        assert np.array_equal(one.mask, other.mask)
    assert unpack(0, pack([])) == []


def test_a_table_is_written_as_csv_and_where_pyarrow_is_there_as_parquet(tmp_path):
    files = write_table(tmp_path / "t.csv", [(1, 0.25), (2, 1 / 3)], ("id", "score"))
    assert (tmp_path / "t.csv").read_text() == "id,score\n1,0.25\n2,0.333333\n"
    parquet = pytest.importorskip("pyarrow.parquet")
    assert parquet.read_table(files[1]).to_pydict() == {"id": [1, 2], "score": [0.25, 1 / 3]}


@pytest.mark.parametrize("task_size", [(16, 20, 24), (64, 64, 64)])
def test_tasks_of_a_queue_write_the_same_bytes(lab, monkeypatch, task_size):
    pytest.importorskip("taskqueue")
    from deepem.blocks import worker
    from deepem.blocks.plan import Plan
    from deepem.test import blockwise

    monkeypatch.setattr(worker, "WAIT_S", 0)
    worker.tasks_of.cache_clear()
    folder = lab.cwd / "experiments/exp/forward"
    lab.predict()
    whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for path in folder.iterdir():
        path.unlink()
    words = ["--exp_name", "exp", "--cpu", "--model", str(lab.folder / "oracle.py"), "--data_dir", "data", "--test_ids",
             "t", "--overlap", "8,8,8"]  # fmt: skip
    plan = blockwise.make_plan("plan", words, task_size)
    assert [phase.name for phase in plan.phases] == ["find", "merge", "count", "number", "write"]
    while len(plan.done()) < len(plan):
        assert worker.enqueue(plan, "fq://queue") > 0
        worker.work("fq://queue", 60)
        assert not plan.failed()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert worker.damaged(Plan.load("plan")) == []
    (folder / "t_instance_7.h5").write_bytes(b"damaged")
    (lab.cwd / "plan/objects/tiles/1.npz").unlink()
    first, last = 1 if task_size[0] == 16 else 0, len(plan) - 1
    assert worker.damaged(Plan.load("plan")) == [first, last]
