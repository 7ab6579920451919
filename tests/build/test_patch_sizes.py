"""Patches of networks that give less in evaluation than in training, and finer outputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepem.build.network import create_network, patch_sizes
from deepem.cli import plugins
from deepem.tasks import choose
from deepem.train.evaluation import cropped
from deepem.utils.errors import InputError

ODD = {"downsample_factors": [(3, 2, 2)], "kernel_size_down": [[(3, 3, 3)]] * 2, "kernel_size_up": [[(3, 3, 3)]]}


def plug_in(**flags: object) -> plugins.PlugIn:
    return plugins.named("model", "cnnectome_unet", {"num_fmaps": 2, "fmap_inc_factor": 1, **flags}, missing=True)


def new(**flags: object) -> plugins.PlugIn:
    """With the defaults of today."""
    return plug_in(**{"io_kernel": None, "equivariant": "eval", **flags})


@pytest.mark.parametrize("z", [14, 17, 20])
def test_an_evaluated_output_lies_where_its_front_says(z: int) -> None:
    """14 sections give 4 in training, from the 5th on, and 3 in evaluation, from the 5th on, too: not from the 6th."""
    model, chosen = new(**ODD), choose(["mit"])
    training, evaluated = (patch_sizes(model, (z, 20, 24), None, evaluating=mode) for mode in (False, True))
    if z == 14:
        assert (training.output[0], evaluated.output[0]) == (4, 3)
        assert (training.front[0], evaluated.front[0]) == (5, 5)
    net, x = create_network(model, chosen, 1, training, seed=0), torch.rand(1, 1, z, 20, 24)
    with torch.no_grad():
        more, less = (net.train(mode)(x)["mitochondria"] for mode in (True, False))
    assert (more.shape[2:], less.shape[2:]) == (training.output, evaluated.output)
    begin = [e - t for e, t in zip(evaluated.front, training.front, strict=True)]
    box = (..., *(slice(b, b + n) for b, n in zip(begin, evaluated.output, strict=True)))
    torch.testing.assert_close(more[box], less)
    batch = cropped({"input": x, "mitochondria": more, "mitochondria_mask": more > 0}, {"mitochondria": less})
    torch.testing.assert_close(batch["mitochondria"], less)
    assert torch.equal(batch["mitochondria_mask"], less > 0)


def test_an_output_whose_centre_evaluation_moves_cannot_be_cropped() -> None:
    with pytest.raises(InputError, match="outputsz: got 2,10,10, wants none: the centre of"):
        patch_sizes(new(**ODD), (14, 20, 24), (2, 10, 10))


def test_a_finer_output_must_lie_in_the_middle() -> None:
    finer = {"upsample_factors": [(2, 1, 1)], "superres_padding": "same"}
    with pytest.raises(InputError, match="wants equivariant True or False: evaluation would move"):
        patch_sizes(new(**ODD, **finer), (14, 20, 24), None)
    same = {**ODD, "kernel_size_down": [[(1, 3, 3)], [(3, 3, 3)]], "kernel_size_up": [[(1, 3, 3)]]}
    sizes = patch_sizes(new(**same, **finer), (15, 20, 24), None)
    assert (sizes.output, sizes.factor, sizes.tiling) == ((18, 12, 16), (2, 1, 1), None)
    assert sizes.front == (6, 4, 4)


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        ({}, (3, 2, 2)),
        ({"padding": "same"}, None),
        ({"io_kernel": (1, 5, 5)}, None),
        ({"upsample_factors": [(2, 1, 1), (1, 1, 3)], "superres_padding": "valid"}, (6, 2, 6)),
        ({"upsample_factors": [(2, 1, 1)], "superres_padding": "same"}, None),
    ],
)
def test_steps_between_tiles(flags, steps) -> None:
    assert new(**ODD, **flags).module.tiling(**new(**ODD, **flags).flags) == steps


def test_networks_of_before_tile_as_they_did() -> None:
    sizes = patch_sizes(plug_in(**ODD), (14, 20, 24), None, evaluating=True)
    assert sizes.tiling is None
    assert sizes.moved == (0, 0, 0)
    assert np.all(np.asarray(sizes.output) == (3, 12, 16))
