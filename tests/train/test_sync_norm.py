"""Batch norm over two CPU ranks with half a batch each is that of one process with the whole batch."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest
import torch
from lab import ended
from torch import distributed, nn

from deepem.train.sync_norm import SyncedBatchNorm, synchronise

SHAPE = (4, 3, 2, 5, 6)


def network(affine: bool, momentum: float | None) -> nn.Module:
    torch.manual_seed(0)
    norms = [nn.BatchNorm3d(n, affine=affine, momentum=momentum) for n in (3, 2)]
    for norm in norms if affine else []:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias)
    return nn.Sequential(norms[0], nn.Conv3d(3, 2, 1), norms[1], nn.Tanh()).double()


def images() -> torch.Tensor:
    x = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x * torch.arange(1, 5).view(-1, 1, 1, 1, 1) + 100  # samples differ, and the mean is far from 0


def stepped(net: nn.Module, x: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Outputs, gradients and statistics of two steps on the same images."""
    x = x.clone().requires_grad_()
    for _ in range(2):
        out = net(x)
        (out * weight).sum().backward()
    gradients = {f"d{name}": p.grad for name, p in net.named_parameters()}
    return {"out": out.detach(), "dx": x.grad, **gradients, **dict(net.named_buffers())}


def as_rank(rank: int, folder: Path, affine: bool, momentum: float | None) -> None:
    """One of two ranks, which writes down what it found."""
    store = distributed.FileStore(str(folder / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    calls, reduce = [], distributed.all_reduce
    distributed.all_reduce = lambda tensor, *more: calls.append(len(tensor)) or reduce(tensor, *more)
    net = network(affine, momentum)
    synchronise(net, torch.device("cpu"))
    half = slice(2 * rank, 2 * rank + 2)
    found = stepped(net, images()[half], weights()[half])
    torch.save({**found, "calls": len(calls)}, folder / f"{rank}.pt")


def weights() -> torch.Tensor:
    return torch.rand(4, 2, 2, 5, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(("affine", "momentum"), [(True, 0.1), (False, None)])
def test_two_ranks_are_one_process(tmp_path, affine, momentum):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a process that is forked off has no others
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            try:
                as_rank(rank, tmp_path, affine, momentum)
            except BaseException:  # noqa: BLE001 - it is told, and the exit code says so
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [ended(child) for child in children] == [0, 0]
    torch.set_num_threads(threads)
    a, b = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    whole = stepped(network(affine, momentum), images(), weights())
    gradients = max(float(value.abs().max()) for name, value in whole.items() if name.startswith("d"))
    for name, value in whole.items():
        if name in ("out", "dx"):
            both = torch.cat([a[name], b[name]])
        elif name.startswith("d"):
            both = a[name] + b[name]  # of a sum, as DDP adds them
        else:
            assert torch.equal(a[name], b[name])
            both = a[name]
        assert torch.allclose(both, value, rtol=1e-9, atol=1e-9 * gradients), name
    assert a["calls"] == b["calls"] == 2 * 2 * 2  # two steps of two norms: one all-reduce forward, one backward


def test_frozen_norms_and_eval_mode_are_plain():
    net = network(True, 0.1)
    expected = net.eval()(images())
    synchronise(net, torch.device("cpu"), [net[0]])
    assert type(net[0]) is nn.BatchNorm3d
    assert type(net[2]) is SyncedBatchNorm
    assert torch.equal(net(images()), expected)
    assert isinstance(net.train()[2], nn.modules.batchnorm._NormBase)
