"""Precision, memory format and deterministic forms: what they change, and what they must not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from lab import DEVICES
from torch import nn

from deepem.build import device as choice
from deepem.train import device, transfer
from deepem.utils.errors import InputError


@pytest.mark.parametrize(("size", "shape"), [((1, 2, 2), (2, 3, 4, 6, 8)), ((2, 2, 2), (1, 2, 5, 6, 7))])
def test_deterministic_pooling_is_max_pooling(size, shape):
    """Values rounded to a few levels, so that there are ties: the gradient goes where that of MaxPool3d goes."""
    torch.manual_seed(0)
    a = (torch.randn(shape) * 2).round().requires_grad_()
    b = a.detach().clone().requires_grad_()
    ours, theirs = device.DeterministicPool(size)(a), nn.MaxPool3d(size)(b)
    assert torch.equal(ours, theirs)
    weight = torch.randn_like(ours)
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    assert torch.equal(a.grad, b.grad)


def test_poolings_are_replaced_and_names_stay():
    net = nn.Sequential(nn.Conv3d(1, 1, 1), nn.Sequential(nn.MaxPool3d((1, 2, 2)), nn.Conv3d(1, 1, 1)))
    names = list(net.state_dict())
    device.made_deterministic(net)
    assert isinstance(net[1][0], device.DeterministicPool)
    assert list(net.state_dict()) == names
    with pytest.raises(InputError, match="--deterministic: got a pooling"):
        device.made_deterministic(nn.Sequential(nn.MaxPool3d(3, stride=1)))


def test_a_deterministic_run_is_the_same_run_on_a_cpu(lab, equal_runs):
    try:
        lab.train("some", "--max_iter", 2, "--deterministic")
    finally:
        torch.use_deterministic_algorithms(False)
    lab.train("other", "--max_iter", 2)
    equal_runs("some", "other", 2)


NETWORK = ("--model", "rsunet", "--width", 4, 8, "--fov", "4,16,16", "--max_iter")


@pytest.mark.parametrize(
    ("where", "amp"),
    [
        pytest.param("cpu", "off", id="on_cpu"),
        *(pytest.param("cuda", amp, id=f"on_gpu-{amp}", marks=pytest.mark.gpu) for amp in ("off", "bf16", "fp16")),
    ],
)
def test_a_deterministic_run_repeats_itself(lab, equal_runs, where, amp):
    """To the bit, whether it is resumed or not."""
    how = ("--deterministic", "--amp", amp, "--ema", 0.9, "--num_workers", 2)
    lab.train_on(where, "whole", *NETWORK, 8, *how)
    lab.train_on(where, "again", *NETWORK, 8, *how)
    lab.train_on(where, "parts", *NETWORK, 3, *how)
    lab.train_on(where, "parts", *NETWORK, 8, *how)
    equal_runs("whole", "again", 8)
    equal_runs("whole", "parts", 8)


@pytest.mark.gpu
@pytest.mark.parametrize("more", [(), ("--no-channels_last",), ("--deterministic",), ("--compile",)])
def test_a_run_on_a_gpu_is_that_on_a_cpu(lab, more):
    """Losses of some steps and the weights after them, in float32 without TF32."""
    how = ("--no-tf32", "--size_average", "--optim", "SGD", "--lr", 0.05, "--avgs_intv", 1, "--warm_up", 0)
    lab.train("cpu", *NETWORK, 6, *how)
    lab.train_on("cuda", "gpu", *NETWORK, 6, *how, *more)
    for a, b in zip(lab.rows("cpu", "train"), lab.rows("gpu", "train"), strict=True):
        assert [b[head] for head in ("affinity", "mitochondria")] == pytest.approx(
            [a[head] for head in ("affinity", "mitochondria")], rel=1e-3
        )
    weights = [lab.state(name, 6)["state_dict"] for name in ("cpu", "gpu")]
    assert list(weights[0]) == list(weights[1])
    for one, other in zip(*(state.values() for state in weights), strict=True):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("where", "optim", "amp"),
    [
        pytest.param("cpu", "Adam", "off", id="on_cpu"),
        *(
            pytest.param("cuda", optim, amp, id=f"on_gpu-{optim}-{amp}", marks=pytest.mark.gpu)
            for optim in ("Adam", "SGD", "RMSprop")
            for amp in ("off", "bf16", "fp16")
        ),
    ],
)
def test_a_step_that_is_not_finite_leaves_all_as_it_was(lab, where, optim, amp):
    """Fused optimisers are launched before it is known, and told there."""
    bad = lab.mishap("bad", 3, "batch['input'][0, 0, 0, 0, 0] = float('nan')")
    how = ("--modifier", bad, "--skip_nan", 1, "--chkpt_intv", 1, "--optim", optim, "--amp", amp, "--ema", 0.9)
    lab.train_on(where, "run", *NETWORK, 4, *how)
    before, after = lab.state("run", 2), lab.state("run", 3)
    assert after["skipped"] == 1
    for old, new in zip(_tensors(before), _tensors(after), strict=True):
        assert torch.equal(old, new)


def _tensors(state):
    """Weights, their average, and what the optimiser has of them."""
    moments = [value for held in state["optimizer"]["state"].values() for value in held.values()]
    return [*state["state_dict"].values(), *state["ema"].values(), *map(torch.as_tensor, moments)]


@pytest.mark.gpu
def test_a_run_moves_between_a_gpu_and_a_cpu(lab):
    """A checkpoint is of no device."""
    lab.train_on("cuda", "run", *NETWORK, 2)
    lab.train("run", *NETWORK, 4)
    lab.train_on("cuda", "run", *NETWORK, 6)
    assert lab.state("run", 6)["iter"] == 6


def test_classes_are_float32_on_the_device():
    """As single values throughout, too; everything else keeps its type."""
    batch = {
        "mitochondria": torch.tensor([[0, 1]], dtype=torch.uint8),
        "myelin": torch.ones(1, dtype=torch.uint8).expand(4, 4),
        "affinity": torch.tensor([2**40]),
        "input": torch.rand(3),
    }
    (arrived,) = transfer.DeviceBatches([batch], torch.device("cpu"))
    assert [arrived[key].dtype for key in batch] == [torch.float32, torch.float32, torch.int64, torch.float32]
    assert all(torch.equal(arrived[key], batch[key]) for key in ("affinity", "input"))
    assert arrived["mitochondria"].tolist() == [[0, 1]]
    assert not any(arrived["myelin"].stride())
    assert bool((arrived["myelin"] == 1).all())


@pytest.mark.parametrize("where", DEVICES)
def test_grey_bytes_become_what_numpy_makes_of_them(where):
    """To the bit, on any device: a resumed run may have moved."""
    grey = torch.arange(256, dtype=torch.uint8)
    black = torch.zeros(1, dtype=torch.uint8).expand(4, 4)
    (arrived,) = transfer.DeviceBatches(
        [{"input": grey, "dark": black, "mye": grey}], torch.device(where), ("input", "dark")
    )
    np.testing.assert_array_equal(arrived["input"].cpu().numpy(), grey.numpy() / np.float32(255))
    assert arrived["dark"].dtype == torch.float32
    assert not arrived["dark"].any()
    assert arrived["mye"].max() == 255


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("where", DEVICES)
def test_batches_arrive_whole_and_in_order(where, ahead):
    pin = torch.Tensor.pin_memory if where == "cuda" else torch.Tensor.clone
    made = ({"a": pin(torch.full((64, 64), i)), "b": torch.tensor([i]).expand(8, 8)} for i in range(20))
    arriving = transfer.DeviceBatches(made, torch.device(where))
    for i, batch in enumerate(arriving):
        if ahead:
            arriving.fetch()
            arriving.fetch()  # once is enough
        assert bool((batch["a"] == i).all())
        assert bool((batch["b"] == i).all())
        assert 0 <= arriving.waited < 60
    assert i == 19


@pytest.mark.parametrize("ahead", [False, True])
def test_a_cpu_waits_for_all_the_time_that_its_batch_takes(monkeypatch, ahead):
    """Asked for during a step or not: there is nothing that runs beside."""
    clock = [0.0]
    monkeypatch.setattr(transfer, "perf_counter", lambda: clock[0])

    def made():
        for seconds in (1.0, 2.0, 4.0):
            clock[0] += seconds
            yield {"a": torch.zeros(1)}

    arriving, waited = transfer.DeviceBatches(made(), torch.device("cpu")), []
    for _ in arriving:
        waited.append(arriving.waited)
        clock[0] += 100
        if ahead:
            arriving.fetch()
    assert waited == [1.0, 2.0, 4.0]


def test_a_batch_that_cannot_be_made_is_an_error_when_it_is_due():
    """The step before it is finished, though its batch was asked for in that step."""

    def made():
        yield {"a": torch.zeros(1)}
        raise InputError("--data", "a broken volume", "a whole one")

    arriving = transfer.DeviceBatches(made(), torch.device("cpu"))
    next(arriving)
    arriving.fetch()
    with pytest.raises(InputError, match="a broken volume"):
        next(arriving)


def test_too_little_memory_is_one_line_and_loses_nothing(lab, capsys):
    full = lab.mishap("full", 3, "raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')")
    assert lab.fails("run", "--max_iter", 4, "--chkpt_intv", 1, "--modifier", full) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("run.py: error: --fov, --batch_size: got 4,12,12 and 1, too much for the device")
    assert "Tried to allocate 2.00 GiB" in lines[-1]
    assert "Traceback" not in "".join(lines)
    lab.calm()
    lab.train("run", "--max_iter", 4, "--modifier", full)
    assert lab.state("run", 4)["iter"] == 4


@pytest.mark.parametrize(("amp", "band"), [("bf16", 0.02), ("fp16", 0.05)])
def test_mixed_precision_learns_as_float32_does(lab, amp, band):
    """Weights stay float32, losses within a band about those of float32; fp16 loses the steps that find its scale."""
    more = ("--max_iter", 12, "--warm_up", 12, "--lr", 0.01)
    lab.train("full", *more)
    lab.train("half", *more, "--amp", amp)
    for a, b in zip(lab.rows("full", "train"), lab.rows("half", "train"), strict=True):
        assert b["affinity"] == pytest.approx(a["affinity"], rel=band)
    assert all(value.dtype != torch.bfloat16 for value in lab.state("half", 12)["state_dict"].values())


@pytest.mark.parametrize(("amp", "last"), [("off", False), ("bf16", True)])
def test_only_half_precision_is_channels_last_by_default_on_a_cpu(lab, amp, last):
    """There float32 gradients of a batch norm are less exact: torch 2.13 adds voxel to voxel."""
    lab.train("run", "--max_iter", 1, "--amp", amp)
    assert lab.state("run", 1)["options"]["channels_last"] is last


def test_changing_the_precision_of_a_run_is_a_warning(lab, capsys):
    """And it is told, as the default is another one on another machine."""
    lab.train("run", "--max_iter", 2)
    assert "iterations 0 to 2 on cpu in float32\n" in capsys.readouterr().out
    lab.train("run", "--max_iter", 3, "--amp", "bf16")
    out, err = capsys.readouterr()
    assert "warning: --amp was off, is bf16: rounding differs" in err
    assert "iterations 2 to 3 on cpu in bfloat16\n" in out


@pytest.mark.parametrize(
    ("amx", "instruction", "processor", "fast"),
    [
        (False, True, "vendor_id : AuthenticAMD", True),
        (False, True, "vendor_id : GenuineIntel", False),
        (True, True, "vendor_id : GenuineIntel", True),
        (False, False, "vendor_id : AuthenticAMD", False),
    ],
)
def test_bfloat16_is_the_default_where_it_is_faster(monkeypatch, amx, instruction, processor, fast):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instruction)
    monkeypatch.setattr(choice.Path, "read_text", lambda *args, **more: processor)
    assert choice.has_fast_bf16("cpu") is fast


def test_a_trace_is_written(lab):
    lab.train("run", "--max_iter", 9, "--profile", 2)
    trace = json.loads((lab.folder / "experiments" / "run" / "logs" / "trace.json").read_text())
    steps = {event["name"] for event in trace["traceEvents"] if str(event.get("name")).startswith("ProfilerStep")}
    assert len(steps) == 2
    named = {"begin", "next batch", "forward", "losses", "backward", "gradient norm", "prefetch", "optimiser", "log"}
    assert named <= {event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation"}


def test_auxiliary_outputs_are_trained_with_their_weight(lab):
    """Deep supervision: one more loss per head, halved, which evaluation leaves out."""
    more = ("--model", "rsunet", "--width", 4, 8, "--fov", "4,16,16", "--max_iter", 4)
    lab.train("deep", *more, "--deep_supervision", 0.5)
    first, test = lab.rows("deep", "train")[0], lab.rows("deep", "test")[0]
    assert {"affinity", "affinity@level1", "mitochondria", "mitochondria@level1"} <= first.keys()
    assert "affinity@level1" not in test
    assert test["loss"] == pytest.approx(test["affinity"] + 0.5 * test["mitochondria"])


@pytest.mark.slow
def test_a_compiled_network_saves_the_names_of_the_network(lab):
    lab.train("run", "--max_iter", 2, "--compile")
    lab.train("run", "--max_iter", 3)
    assert list(lab.state("run", 2)["state_dict"]) == list(lab.state("run", 3)["state_dict"])
