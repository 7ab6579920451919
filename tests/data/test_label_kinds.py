"""What samples hold for each kind of task, and for rows that a dataset brings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deepem.data.kinds import id_labels, storage
from deepem.data.labels import as_classes, as_ids
from deepem.data.sampler.basic import Sampler, get_spec
from deepem.data.transform import FlipRotate
from deepem.data.volume import compact
from deepem.tasks import TASKS, Task, choose, labels, out_spec, table
from deepem.utils.errors import InputError

SHAPE = (6, 14, 16)
SIZE = (4, 8, 8)
POSITION = np.arange(np.prod(SHAPE)).reshape(SHAPE)
CELL = Task("cell", "cells", "cell", "affinity", 1, "cells", ((0, 0, 1),))
LAYER = Task("lay", "layers", "lay", "semantic", 3, "layers of cortex")


def sampler(rows: Any, aug: Any = None, **arrays: Any) -> Sampler:
    volume = {"img": (POSITION / 2048).astype(np.float32), **arrays}
    data = {"a": compact("lab a", volume, labels(rows), "train", rows)}
    spec = get_spec({"input": (1, *SIZE)}, out_spec(rows, SIZE), tasks=rows)
    return Sampler(data, spec, True, aug, tasks=rows)


def position(sample: Any) -> Any:
    return (sample["input"][0] * 2048).astype(int)


def test_classes_are_their_numbers():
    made = sampler(choose(["sem"], channels={"sem": 5}), FlipRotate(), sem=POSITION % 5)
    assert made.spec["semantic"] == (1, *SIZE)
    for seed in range(20):
        sample = made(np.random.default_rng(seed))
        assert sample["semantic"].dtype == np.uint8
        np.testing.assert_array_equal(sample["semantic"][0], position(sample) % 5)
        np.testing.assert_array_equal(sample["semantic_mask"], 1)


def test_classes_without_a_channel_are_refused_unless_a_mask_is_over_them():
    rows = choose(["sem"], channels={"sem": 5})
    with pytest.raises(InputError, match=r"^a sem: got the class 6, wants classes from 0 to 4"):
        sampler(rows, sem=POSITION % 7)
    unlabelled = np.where(POSITION % 7 > 4, 255, POSITION % 7)
    for mask in ("msk", "sem_msk"):
        made = sampler(rows, sem=unlabelled, **{mask: POSITION % 7 < 5})
        sample = made(np.random.default_rng(0))
        np.testing.assert_array_equal(sample["semantic_mask"][0], position(sample) % 7 < 5)


def test_classes_of_several_binary_channels_are_checked_too():
    rows = choose(["blv", "mit"])
    sampler(rows, blv=POSITION % 3, mit=POSITION % 9)  # one channel is any label above 0
    sampler(rows, blv=np.stack([POSITION % 5, POSITION % 7]))
    with pytest.raises(InputError, match=r"^a blv: got the class 3, wants classes from 0 to 2"):
        sampler(rows, blv=POSITION % 4)


def test_ids_of_a_label_of_its_own_are_kept():
    """A label that only a dataset's row names is stored as ids, not cut to bytes."""
    ids = POSITION + 2**33
    made = sampler(choose(["aff", "cell"], rows=table([CELL])), FlipRotate(), seg=POSITION + 1, cell=ids)
    assert made.spec["cells"] == (1, *SIZE)
    sample = made(np.random.default_rng(0))
    assert sample["cells"].dtype == sample["affinity"].dtype == np.int64
    np.testing.assert_array_equal(sample["cells"][0], position(sample) + 2**33)
    np.testing.assert_array_equal(sample["affinity"][0], position(sample) + 1)


def test_classes_of_a_label_of_its_own():
    made = sampler([LAYER], lay=POSITION % 3)
    sample = made(np.random.default_rng(0))
    np.testing.assert_array_equal(sample["layers"][0], position(sample) % 3)


def test_rows_that_are_not_told_are_no_outputs():
    with pytest.raises(InputError, match="the output layers, wants one of affinity"):
        get_spec({"input": (1, *SIZE)}, {"layers": (3, *SIZE)})


def test_how_a_label_is_stored():
    rows = table([CELL, LAYER])
    assert id_labels(TASKS) == {"seg"}
    assert id_labels(rows) == {"seg", "cell"}
    assert id_labels(choose(["bdr"])) == {"seg"}  # which the boundary can be made from
    assert storage("seg", choose(["bdr"])) is storage("cell", rows) is as_ids
    assert storage("lay", rows) is storage("mit", rows) is as_classes
    mixed = [Task("fg", "inside", "cell", "binary", 1, "inside of cells"), CELL]
    assert storage("cell", mixed) is as_ids
    made = sampler(mixed, cell=(POSITION % 3) * 1000)
    sample = made(np.random.default_rng(0))
    np.testing.assert_array_equal(sample["inside"][0], position(sample) % 3 > 0)


def test_what_was_looked_at_is_not_looked_at_again(capsys: Any):
    sampler(choose(["mit", "aff"]), seg=POSITION * 0, mit=np.where(POSITION % 5, POSITION % 2, 255).astype(np.uint8))
    assert len(capsys.readouterr().err.splitlines()) == 2
