"""Readable is not right: what a checkpoint holds is looked at when it is read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepem.utils import checkpoint, checkpoint_contents
from deepem.utils.errors import InputError

WEIGHTS = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}


def stored(folder: Path, state: Any) -> Path:
    torch.save(state, folder / "model1.chkpt")
    return folder / "model1.chkpt"


@pytest.mark.parametrize(
    ("state", "got"),
    [
        ({"state_dict": {"a": 1.0}}, r"state_dict\[a\] = 1.0"),
        ({"state_dict": {5: torch.ones(1)}}, "state_dict with an entry named 5"),
        ({"state_dict": {}}, "state_dict empty"),
        ({"state_dict": [1]}, "state_dict = \\[1\\]"),
        ({"state_dict": WEIGHTS, "ema": {"a": None}}, r"ema\[a\] = None"),
        (
            {"state_dict": WEIGHTS, "ema": {"a.weight": torch.ones(2, 3)}},
            r"ema of other weights .*\(a.bias: shape none",
        ),
        ({"state_dict": {**WEIGHTS, "z": torch.ones(2)}, "ema": WEIGHTS}, r"ema of other weights than state_dict \(z:"),
        ({"state_dict": WEIGHTS, "ema": {**WEIGHTS, "a.bias": torch.zeros(3)}}, r"ema of .* \(3,\) and \(2,\)\)"),
        ({"state_dict": WEIGHTS, "iter": "six"}, "iter = 'six'"),
        ({"state_dict": WEIGHTS, "iter": -1}, "iter = -1"),
        ({"state_dict": WEIGHTS, "options": [1]}, "options"),
        ({"state_dict": WEIGHTS, "options": {"model": 5}}, "options"),
        ({"state_dict": WEIGHTS, "options": {"inputsz": [1, 2]}}, "options"),
        ({"state_dict": WEIGHTS, "spec": {}}, "spec"),
        ({"state_dict": WEIGHTS, "averages": {"affinity": 3}}, "averages"),
        ({"state_dict": WEIGHTS, 7: 7}, "an entry named 7"),
        ({}, "a dict of nothing"),
        (torch.ones(2), "a Tensor"),
    ],
)
def test_other_types_are_refused_when_a_checkpoint_is_read(tmp_path, state, got):
    with pytest.raises(InputError, match=f"model1.chkpt: got {got}.*, wants "):
        checkpoint.read(stored(tmp_path, state))


@pytest.mark.parametrize("value", [np.int64(1), np.float64(0.3), argparse.Namespace(lr=1)])
def test_a_file_with_other_objects_is_not_called_truncated(tmp_path, value):
    with pytest.raises(
        InputError, match=r"got other objects in it \((numpy|argparse)[\w.]+\), wants tensors and plain"
    ):
        checkpoint.read(stored(tmp_path, {"state_dict": WEIGHTS, "other": value}))


def test_weights_that_are_no_numbers_are_not_loaded():
    network = torch.nn.Linear(3, 2)
    weights = {"weight": torch.full((2, 3), torch.nan), "bias": torch.zeros(2)}
    with pytest.raises(InputError, match=r"x: got weights that are not finite \(weight\)"):
        checkpoint.load_weights(network, weights, "x")


def test_an_average_does_not_hide_that_training_failed():
    state = {"state_dict": {**WEIGHTS, "a.bias": torch.tensor([0.0, torch.inf])}, "ema": WEIGHTS}
    for raw in (False, True):
        with pytest.raises(InputError, match=r"model9: got weights that are not finite \(a.bias\)"):
            checkpoint.weights_of(state, "model9", raw=raw)
    used = {name: value + 1 for name, value in WEIGHTS.items()}
    assert checkpoint.weights_of({"state_dict": WEIGHTS, "ema": used}, "it") is used
    assert checkpoint.weights_of({"state_dict": WEIGHTS, "ema": used}, "it", raw=True) is WEIGHTS
    assert checkpoint.weights_of({"state_dict": WEIGHTS}, "it") is WEIGHTS


def test_extra_state_of_a_module_is_no_tensor(tmp_path):
    class Counting(torch.nn.Linear):
        calls = 0

        def get_extra_state(self):
            return {"calls": self.calls}

        def set_extra_state(self, state):
            self.calls = state["calls"]

    network, other = Counting(3, 2), Counting(3, 2)
    network.calls = 4
    state = checkpoint.read(stored(tmp_path, {"state_dict": network.state_dict()}))
    checkpoint.load_weights(other, state["state_dict"], "x")
    assert other.calls == 4


def optimiser(*shapes):
    made = torch.optim.Adam([torch.nn.Parameter(torch.ones(shape)) for shape in shapes])
    for parameter in made.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    made.step()
    return made


def test_moments_of_another_shape_are_refused():
    """Torch loads them, and reads foreign memory in the next step."""
    own, other = optimiser((2, 3), (4,)), optimiser((4,), (2, 3))
    checkpoint_contents.check_optimiser(own.state_dict(), own, "x")
    with pytest.raises(InputError, match=r"x: got exp_avg 0 of the optimizer with shape \(4,\), wants \(2, 3\)"):
        checkpoint_contents.check_optimiser(other.state_dict(), own, "x")


@pytest.mark.parametrize("saved", [5, {}, {"state": {}, "param_groups": [5]}, {"state": {}, "param_groups": []}])
def test_what_is_no_state_of_an_optimiser_is_refused(saved):
    own = optimiser((2, 3))
    with pytest.raises(InputError, match="or --pretrain to take the weights alone"):
        checkpoint_contents.check_optimiser(saved, own, "x")


def test_a_checkpoint_that_vanishes_while_it_is_read_makes_way_for_a_newer_one(tmp_path, monkeypatch):
    """A run prunes its folder while a reader looks for the newest."""
    checkpoint.write(checkpoint.path_of(tmp_path, 1), {"state_dict": WEIGHTS})
    read = checkpoint.read

    def vanishing(path):
        if path == checkpoint.path_of(tmp_path, 1):
            checkpoint.write(checkpoint.path_of(tmp_path, 2), {"state_dict": WEIGHTS})
            path.unlink()
        return read(path)

    monkeypatch.setattr(checkpoint, "read", vanishing)
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[0] == 2
