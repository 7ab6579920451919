"""Every optimiser of torch that --optim offers, and moments that were made by the public program."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn

from deepem.train.optimiser import UNFIT, in_groups, optimizer
from deepem.train.weights import groups
from deepem.utils.errors import InputError

SETTINGS = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "amsgrad": False, "momentum": 0.9}
NAMES = sorted(
    name
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and name not in ("Optimizer", *UNFIT)
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.Conv3d(4, 2, 1))


def step(net: nn.Module, optim: torch.optim.Optimizer) -> None:
    optim.zero_grad()
    net(torch.rand(1, 1, 4, 8, 8)).square().sum().backward()
    optim.step()


@pytest.mark.parametrize("name", NAMES)
def test_an_optimiser_that_is_offered_trains(name):
    net = network()
    before = net[0].weight.detach().clone()
    optim = optimizer(name, groups(net, (), 0.0), **SETTINGS)
    step(net, optim)
    assert not torch.equal(net[0].weight, before)
    assert net[0].weight.isfinite().all()


@pytest.mark.parametrize("name", UNFIT)
def test_one_that_wants_another_loop_is_not_offered(name):
    with pytest.raises(InputError, match=f"--optim: got {name}, wants one of ") as caught:
        optimizer(name, groups(network(), (), 0.0), **SETTINGS)
    assert name not in caught.value.wants.split(", ")


def test_public_moments_find_their_parameters_in_any_groups():
    """Each parameter goes on with its own moments, under the settings of this command line."""
    net = network()
    public = torch.optim.Adam(net.parameters(), lr=0.5, betas=(0.1, 0.2))
    step(net, public)
    saved = public.state_dict()
    own = optimizer("Adam", groups(net, [("2", 0.1)], 0.01), **SETTINGS)
    assert len(own.param_groups) > 2
    own.load_state_dict(in_groups(saved, own, list(net.parameters()), "model1.chkpt"))
    for parameter in net.parameters():
        assert torch.equal(own.state[parameter]["exp_avg"], public.state[parameter]["exp_avg"])
        assert own.state[parameter]["step"] == 1
    assert {group["betas"] for group in own.param_groups} == {(0.9, 0.99)}
    assert {group["lr"] for group in own.param_groups} == {0.01}
    step(net, own)


def test_moments_of_another_optimiser_or_network_are_refused():
    net = network()
    saved = torch.optim.Adam(net.parameters()).state_dict()
    sgd = optimizer("SGD", groups(net, (), 0.0), **SETTINGS)
    with pytest.raises(
        InputError, match=r"model1.chkpt: got the state of another optimiser than SGD, wants .*--pretrain"
    ):
        in_groups(saved, sgd, list(net.parameters()), "model1.chkpt")
    with pytest.raises(InputError, match="an optimiser of 6 parameters where the network has 5"):
        in_groups(saved, sgd, list(net.parameters())[1:], "model1.chkpt")
