"""Batch-norm statistics taken anew are the mean over many patches, under the weights that are used."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from deepem.models import dynamic_rsunet
from deepem.train import calibration


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 3, 1), nn.BatchNorm3d(3), nn.Dropout3d(0.5), nn.Conv3d(3, 2, 1), nn.BatchNorm3d(2)
    )


def patches(count: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(2, 1, 2, 4, 4, generator=generator) + n for n in range(count)]


def measured(net: nn.Module, images: list[torch.Tensor], frozen: tuple[nn.Module, ...] = ()) -> calibration.Statistics:
    return calibration.measured(net, frozen, [partial(net, image) for image in images])


def by_channel(x: torch.Tensor) -> np.ndarray:
    """(N, C, Z, Y, X) -> (C, values)."""
    return x.detach().double().movedim(1, 0).flatten(1).numpy()


def test_they_are_the_means_over_the_patches():
    net, images = network(), patches()
    first = [by_channel(net[0](image)) for image in images]
    seen = [nn.functional.batch_norm(net[0](i), None, None, net[1].weight, net[1].bias, training=True) for i in images]
    second = [by_channel(net[3](x)) for x in seen]  # normalised by the patch, as in training; without dropout
    found = measured(net, images)
    assert found.keys() == {f"{n}.running_{what}" for n in (1, 4) for what in ("mean", "var")}
    for n, values in ((1, first), (4, second)):
        assert np.allclose(found[f"{n}.running_mean"], np.mean([v.mean(1) for v in values], 0), atol=1e-6)
        assert np.allclose(found[f"{n}.running_var"], np.mean([v.var(1, ddof=1) for v in values], 0), rtol=1e-5)


def test_nothing_of_the_network_changes():
    net = network().train()
    net[1].eval()
    net[4].momentum = None
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measured(net, patches())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [module.training for module in net] == [True, False, True, True, True]
    assert [net[1].momentum, net[4].momentum] == [0.1, None]
    assert not net[1]._forward_hooks


def test_frozen_norms_are_left_alone():
    net = network()
    assert measured(net, patches(), (net[1],)).keys() == {"4.running_mean", "4.running_var"}
    assert calibration.applies(net, [net[1]])
    assert not calibration.applies(net, [net[1], net[4]])
    assert not calibration.applies(nn.Sequential(nn.BatchNorm3d(1, track_running_stats=False), nn.GroupNorm(1, 1)))


def test_a_norm_that_is_shared_counts_every_call_under_each_name():
    norm = nn.BatchNorm3d(1)
    net = nn.Sequential(norm, nn.Conv3d(1, 1, 1), norm)
    images = patches(3)
    found = measured(net, images)
    assert found.keys() == {f"{n}.running_{what}" for n in (0, 2) for what in ("mean", "var")}
    again = [net[1](nn.functional.batch_norm(i, None, None, training=True)) for i in images]
    expected = np.mean([by_channel(x).mean() for x in (*images, *again)])
    assert found["0.running_mean"].item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(found["0.running_mean"], found["2.running_mean"])


def test_each_pass_of_a_dynamic_network_has_its_own():
    spec = {"input": (1, 2, 8, 8)}
    net = dynamic_rsunet.create_model(in_spec=spec, out_spec={"mitochondria": (1, 2, 8, 8)}, width=[2, 4], unroll=2)
    images = [torch.rand(1, 1, 2, 8, 8) for _ in range(3)]
    found = measured(net, images)
    norms = {name for name in net.state_dict() if name.endswith("running_mean")}
    assert {name for name in found if name.endswith("running_mean")} == norms
    first, second = ([found[name] for name in sorted(norms) if re.search(rf"\.bn\.{turn}\.", name)] for turn in (0, 1))
    assert len(first) == len(second) > 0
    assert any(not torch.allclose(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("ema", [0, 0.9])
def test_the_training_stream_is_the_same_with_and_without(lab, ema):
    more = ("--dropout", 0.3, "--chkpt_intv", 2, "--max_iter", 4)
    lab.train("without", *more, "--ema", 0, "--calibrate", 0)
    lab.train("with", *more, "--ema", ema, "--calibrate", 5)
    a, b = lab.state("without", 4), lab.state("with", 4)
    assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in a["state_dict"])
    assert a["averages"] == b["averages"]
    assert lab.rows("without", "train") == lab.rows("with", "train")
    assert lab.rows("without", "test") != lab.rows("with", "test")
    assert "ema" not in a


def test_a_checkpoint_holds_the_weights_with_statistics_of_their_own(lab, capsys):
    lab.train("run", "--max_iter", 4, "--ema", 0)
    state = lab.state("run", 4)
    for name, value in state["state_dict"].items():
        assert torch.equal(value, state["ema"][name]) == (not name.endswith(("running_mean", "running_var")))
    out = capsys.readouterr().out
    assert out.count("batch-norm statistics taken over 40 training samples") == 1  # for evaluation and checkpoint alike


def test_networks_without_batch_norm_have_none(lab, capsys):
    lab.train("run", "--max_iter", 4, "--ema", 0, "--norm", "group")
    assert "ema" not in lab.state("run", 4)
    assert "statistics" not in capsys.readouterr().out


def test_resuming_gives_the_same_statistics(lab, equal_runs):
    more = ("--ema", 0, "--calibrate", 5, "--dropout", 0.3, "--chkpt_intv", 2)
    lab.train("whole", "--max_iter", 6, *more)
    lab.train("parts", "--max_iter", 3, *more)
    lab.train("parts", "--max_iter", 6, *more, "--num_workers", 1)
    equal_runs("whole", "parts", 6)


def test_they_are_taken_over_training_samples_with_their_modifier(lab):
    (lab.folder / "dark.py").write_text(
        "class Modifier:\n    def __call__(self, batch, rng):\n        return {**batch, 'input': batch['input'] * 0}\n"
    )
    lab.train("run", "--max_iter", 1, "--ema", 0, "--calibrate", 3, "--modifier", "dark.py")
    ema = lab.state("run", 1)["ema"]
    assert torch.allclose(ema["core.1.running_mean"], ema["core.0.bias"], atol=1e-6)
    assert ema["core.1.running_var"].abs().max() < 1e-10


def test_all_ranks_get_the_same_as_one_process(lab):
    more = ("--ema", 0, "--calibrate", 8, "--batch_size", 2, "--max_iter", 1, "--lr", "1e-9", "--eval_intv", 1)
    lab.train("one", *more, "--accumulate", 2)
    assert lab.together("two", *more) == [0, 0]
    a, b = lab.state("one", 1)["ema"], lab.state("two", 1)["ema"]
    for name in ("core.1.running_mean", "core.1.running_var"):
        assert torch.allclose(a[name], b[name], rtol=1e-6)
    assert lab.rows("one", "test")[0]["loss"] == pytest.approx(lab.rows("two", "test")[0]["loss"], rel=1e-5)


def test_a_run_from_before_there_were_such_defaults_resumes_as_it_was(lab, capsys):
    from deepem.utils import checkpoint

    lab.train("run", "--max_iter", 2, "--ema", 0, "--calibrate", 0)
    state = lab.state("run", 2)
    del state["options"]["calibrate"]
    checkpoint.write(lab.models("run") / "model2.chkpt", state)
    capsys.readouterr()
    lab.train("run", "--max_iter", 4)
    assert "--ema 0.0: as this run was started" in capsys.readouterr().out
    assert "ema" not in lab.state("run", 4)
    lab.train("whole", "--max_iter", 4, "--ema", 0, "--calibrate", 0)
    a, b = lab.state("whole", 4)["state_dict"], lab.state("run", 4)["state_dict"]
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_averaging_can_begin_later_if_that_is_meant(lab, capsys):
    lab.train("run", "--max_iter", 2, "--ema", 0)
    assert lab.fails("run", "--max_iter", 3, "--ema", 0.9) == 2
    assert "--ema was 0.0, is 0.9), wants" in capsys.readouterr().err
    lab.train("run", "--max_iter", 3, "--ema", 0.9, "--change", "ema", "--calibrate", 0)
    state = lab.state("run", 3)
    assert any(not torch.equal(state["ema"][name], value) for name, value in state["state_dict"].items())


def test_averaging_is_on_unless_it_is_turned_off(lab):
    lab.train("run", "--max_iter", 2)
    state = lab.state("run", 2)
    assert state["options"]["ema"] == 0.999
    assert any(not torch.equal(state["ema"][name], value) for name, value in state["state_dict"].items())
