"""How targets and predictions are drawn for the log, by kind of task."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepem.tasks import choose
from deepem.train.render import GAP, in_words, pictures
from deepem.utils.palette import class_colours

ROWS = {row.flag: row for row in choose(["aff", "mit", "sem"], channels={"sem": 3})}
SIZE = (3, 4, 4)


def drawn(flag: str, target: torch.Tensor, logits: torch.Tensor) -> list[np.ndarray]:
    """The middle sections: input, target, mask, prediction, each (3, Y, X)."""
    row = ROWS[flag]
    batch = {"input": torch.full((1, 1, *SIZE), 0.5), row.name: target, f"{row.name}_mask": torch.ones(1, 1, *SIZE)}
    (picture,) = pictures([row], batch, {row.name: logits}).values()
    step = SIZE[2] + GAP
    return [picture[:, :, i * step : i * step + SIZE[2]] for i in range(4)]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_classes_have_colours_and_are_darker_where_they_are_not_sure(dtype):
    label = torch.arange(48).reshape(1, 1, *SIZE) % 3
    logits = torch.zeros(1, 3, *SIZE)
    logits[:, 2] = 1
    grey, target, mask, prediction = drawn("sem", label.to(dtype), logits)
    colours = class_colours(3)
    np.testing.assert_allclose(target, np.moveaxis(colours[label[0, 0, 1]], -1, 0))
    sure = float(logits[0, :, 0, 0, 0].softmax(0)[2])
    np.testing.assert_allclose(
        prediction, np.broadcast_to(colours[2][:, None, None] * sure, prediction.shape), atol=1e-6
    )
    assert (grey == 0.5).all()
    assert (mask == 1).all()


def test_binary_targets_are_grey_and_affinities_coloured_by_edge():
    label = torch.arange(48).reshape(1, 1, *SIZE) % 2
    _, target, _, prediction = drawn("mit", label.to(torch.uint8), torch.zeros(1, 1, *SIZE))
    np.testing.assert_array_equal(target, np.broadcast_to(label[0, :, 1], target.shape))
    assert (prediction == 0.5).all()
    ids = torch.zeros(1, 1, *SIZE, dtype=torch.int32)
    ids[..., 2:] = 7
    _, target, _, _ = drawn("aff", ids, torch.zeros(1, 3, *SIZE))
    red, green, blue = target
    np.testing.assert_array_equal(red, np.broadcast_to([0, 0, 0, 1], (4, 4)))
    np.testing.assert_array_equal(green, [[0] * 4, *[[0, 0, 1, 1]] * 3])
    np.testing.assert_array_equal(blue, np.broadcast_to([0, 0, 1, 1], (4, 4)))


@pytest.mark.parametrize("count", [2, 9, 30, 256])
def test_every_class_has_a_colour_of_its_own(count):
    colours = class_colours(count)
    assert colours.shape == (count, 3)
    assert (colours[0] == 0).all()
    assert len(np.unique(colours, axis=0)) == count
    assert 0 <= colours.min() <= colours.max() <= 1


def test_the_mask_of_affinities_is_that_of_the_loss():
    """0 where either voxel is masked or the edge leaves the patch: no cut is drawn that the loss does not see."""
    row, ids = ROWS["aff"], torch.ones(1, 1, *SIZE, dtype=torch.int32)
    mask = torch.ones(1, 1, *SIZE)
    mask[0, 0, 1, 2, 2] = 0
    batch = {"input": torch.rand(1, 1, *SIZE), row.name: ids, f"{row.name}_mask": mask}
    (picture,) = pictures([row], batch, {row.name: torch.zeros(1, 3, *SIZE)}).values()
    step = SIZE[2] + GAP
    target, shown = (picture[:, :, i * step : i * step + SIZE[2]] for i in (1, 2))
    assert ((target == 1) | (shown == 0)).all()
    x = np.array([[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 0, 0], [0, 1, 1, 1]])
    y = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 0, 1]])
    z = np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(shown, np.stack([x, y, z]))


def test_a_text_says_what_each_panel_is():
    words = in_words(ROWS.values(), "sample 3 of seed 0")
    assert words["affinity"] == (
        "From left to right: image, target of affinity, mask (white: the voxel counts in the loss), prediction; "
        "channels from left to right: red: edge 0,0,1, green: edge 0,1,0, blue: edge 1,0,0. "
        "The middle section of sample 3 of seed 0."
    )
    assert "channels" not in words["mitochondria"]
