"""Which volumes are written of an output, by kind of task."""

from __future__ import annotations

import json

import numpy as np
import torch

from deepem.tasks import Task, choose, from_plain
from deepem.test.kinds import made, most_probable, written

OWN = Task("lay", "layers", "lay", "semantic", 3, "layers of cortex")


def test_the_volumes_of_each_kind():
    found = written([*choose(["aff", "mit"]), OWN])
    assert {name: (one.values, one.channels, one.dtype) for name, one in found.items()} == {
        "affinity": ("probability", 3, None),
        "mitochondria": ("probability", 1, None),
        "layers": ("probability", 3, None),
        "layers_class": ("class", 1, "uint8"),
    }


def test_the_most_probable_class():
    values = torch.from_numpy(np.random.default_rng(0).random((5, 3, 4, 6), np.float32))
    values[:, 1, 2, 3] = 0  # nothing is known
    found = most_probable(values[:, :, 1:])  # not in one piece of memory
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found, values[:, :, 1:].argmax(0, keepdim=True))
    assert found[0, 1, 1, 3] == 0


def test_classes_are_made_beside_the_probabilities():
    values = {"layers": torch.rand(3, 2, 2, 2), "layers_var": torch.rand(3, 2, 2, 2)}
    found = made(values, written([OWN]))
    assert list(found) == ["layers", "layers_var", "layers_class"]
    assert found["layers"] is values["layers"]


def test_attributes_say_what_a_row_of_a_dataset_is():
    (edges,) = choose(["long"], edges=[(0, 0, 5), (-2, 0, 0)])
    for row in (OWN, edges):
        one = written([row])[row.name]
        held = one.attributes((1, 2, 3), (40, 3.58, 3.58))
        assert [from_plain(plain) for plain in json.loads(held["rows"])] == [row]
        assert held["voxel_size_nm"].tolist() == [40, 3.58, 3.58]
        assert held["edges"].tolist() == [list(edge) for edge in row.edges]
        assert (held["tasks"], held["offset"].tolist(), held["values"]) == ([row.flag], [1, 2, 3], "probability")
        assert "voxel_size_nm" not in one.attributes((0, 0, 0), None)
