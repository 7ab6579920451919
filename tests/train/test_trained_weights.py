"""Which weights are trained, how fast, from where, and their moving average."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepem.train import weights
from deepem.utils import checkpoint
from deepem.utils.errors import InputError


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = {"core": nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2)), "head": nn.Conv3d(2, 1, 1)}
    return nn.Sequential(nn.ModuleDict(parts))[0]


def test_frozen_parameters_get_no_gradient_and_their_norms_stay():
    net = network()
    norms = weights.freeze(net, ["core"])
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    assert norms == [net["core"][1]]
    assert weights.freeze(network(), []) == []


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["cor"], r"--freeze: got cor, no parameter of the network, wants names such as core.0, core.1, head.weight"),
        (["*"], "--freeze: got *, wants something left to train"),
    ],
)
def test_what_cannot_be_frozen_is_said(patterns, message):
    with pytest.raises(InputError) as caught:
        weights.freeze(network(), patterns)
    assert message in str(caught.value)


def test_groups_have_their_rate_and_decay():
    net = network()
    groups = weights.groups(net, [("core", 0.1), ("*.bias", 2.0)], 0.01)
    by_name = {name: (g["scale"], g["weight_decay"]) for name, p in net.named_parameters() for g in groups if
               any(p is q for q in g["params"])}  # fmt: skip
    assert by_name == {
        "core.0.weight": (0.1, 0.01),
        "core.0.bias": (2.0, 0),
        "core.1.weight": (0.1, 0),
        "core.1.bias": (2.0, 0),
        "head.weight": (1.0, 0.01),
        "head.bias": (2.0, 0),
    }
    assert sum(len(g["params"]) for g in weights.groups(net, [], 0)) == 6
    assert len(weights.groups(net, [], 0)) == 1


def test_pretraining_reports_what_matched_and_what_did_not(tmp_path):
    net = network()
    state = network().state_dict()
    state["head.weight"] = torch.zeros(5)
    del state["head.bias"]
    state["tail.bias"] = torch.zeros(1)
    checkpoint.write(tmp_path / "model1.chkpt", {"state_dict": state})
    lines = weights.pretrain(net, str(tmp_path / "model1.chkpt")).splitlines()
    assert lines[0].endswith("7 of 9 entries taken")
    assert lines[1:] == [
        "  not in it: head.bias",
        "  of another shape: head.weight",
        "  in it, but not in the network: tail.bias",
    ]


def test_pretraining_takes_the_weights_that_are_used(tmp_path):
    net, trained, used = network(), network().state_dict(), network().state_dict()
    used["head.weight"] = used["head.weight"] + 1
    checkpoint.write(tmp_path / "model1.chkpt", {"state_dict": trained, "ema": used})
    weights.pretrain(net, str(tmp_path / "model1.chkpt"))
    assert torch.equal(net["head"].weight, used["head.weight"])


def test_a_part_of_the_state_is_applied_only_within():
    net = network()
    own = net["core"][1].running_mean.clone()
    with weights.applied(net, {"core.1.running_mean": own + 1}):
        assert torch.equal(net["core"][1].running_mean, own + 1)
    assert torch.equal(net["core"][1].running_mean, own)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_the_prefixes_of_wrappers_are_understood(tmp_path, prefix, capsys):
    net, state = network(), {f"{prefix}{name}": value for name, value in network().state_dict().items()}
    checkpoint.write(tmp_path / "model1.chkpt", {"state_dict": state})
    assert weights.pretrain(net, str(tmp_path / "model1.chkpt")).endswith("9 of 9 entries taken")
    assert capsys.readouterr().err == ""


def test_a_prefix_that_is_the_networks_own_stays():
    own = {"model.a": 0, "model.b": 0}
    assert weights.unprefixed(own, own) == own


def test_pretraining_that_takes_less_than_half_warns(tmp_path, capsys):
    net = network()
    state = {name: value for name, value in net.state_dict().items() if name.startswith("head")}
    checkpoint.write(tmp_path / "model1.chkpt", {"state_dict": state})
    weights.pretrain(net, str(tmp_path / "model1.chkpt"))
    assert "warning: --pretrain" in (told := capsys.readouterr().err)
    assert "only 2 of 9 entries taken, less than half" in told


class Replacing(nn.Module):
    """Counts its calls in a buffer that it replaces each time."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("unsaved", torch.zeros(1), persistent=False)

    def forward(self, x):
        self.calls = self.calls + 1
        return x


class Hooked(Replacing):
    """Stores twice what it holds."""

    def __init__(self):
        super().__init__()
        self._register_state_dict_hook(lambda own, state, prefix, _: state.update({f"{prefix}calls": 2 * own.calls}))


@pytest.mark.parametrize(("module", "factor"), [(Replacing, 1), (Hooked, 2)])
def test_the_average_follows_what_modules_replace_or_store_otherwise(module, factor):
    net = nn.Sequential(module())
    average = weights.Average(net, 0.0)
    for iteration in (1, 2):
        net(torch.zeros(1))
        average.update(iteration)
    assert average.state == {"0.calls": torch.tensor([2.0 * factor])}


def test_the_average_follows_the_formula_and_is_applied_only_within():
    net = network()
    average = weights.Average(net, 0.5)
    expected = average.state["head.weight"].clone()
    for iteration in (1, 20):
        with torch.no_grad():
            net["head"].weight.add_(1.0)
        average.update(iteration)
        decay = min(0.5, (1 + iteration) / (10 + iteration))
        expected = decay * expected + (1 - decay) * net["head"].weight.detach()
    assert torch.allclose(average.state["head.weight"], expected)
    own = net["head"].weight.clone()
    with weights.applied(net, average.state):
        assert torch.equal(net["head"].weight, average.state["head.weight"])
    assert torch.equal(net["head"].weight, own)
