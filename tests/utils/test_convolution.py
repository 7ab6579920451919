"""Convolutions that torch would be slow at: the same results, the same weights, on oneDNN."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.profiler import profile

from deepem.utils.convolution import LEAST, quick, quicken


def kernels(call):
    with profile() as seen:
        call()
    return {event.key for event in seen.key_averages()}


@pytest.mark.parametrize(
    "shape", [(1, 16, 5, 16, 16), (1, 16, 20, 64, 4), (1, 16, 20, 65, 4), (1, 16, 5, 5, 9), (2, 16, 5, 16, 16)]
)
@pytest.mark.parametrize(
    "how", [{"padding": 1}, {"bias": False}, {"padding": (0, 1, 2), "stride": (1, 2, 2), "dilation": (2, 2, 1)}]
)
def test_output_and_gradients_are_those_of_the_convolution(shape, how):
    torch.manual_seed(0)
    plain = nn.Conv3d(16, 6, 3, **how)
    ours = copy.deepcopy(plain)
    assert quicken(ours) == [ours]
    results = []
    for convolution in (plain, ours):
        x = torch.linspace(-1, 1, torch.Size(shape).numel()).sin().reshape(shape).requires_grad_()
        y = convolution(x)
        (y * y).sum().backward()
        results.append([y, x.grad, *(p.grad for p in convolution.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4 * float(a.detach().abs().max()))


@pytest.mark.parametrize("format", [torch.contiguous_format, torch.channels_last_3d])
def test_it_is_one_dnn_that_computes(format):
    """Up to the size from which on torch uses it by itself: if that ever changes, this module can go."""
    net = nn.Conv3d(16, 8, 3, padding=1).to(memory_format=format)
    small, large = torch.rand(1, 16, 1, LEAST // 16, 3), torch.rand(1, 16, 1, LEAST // 16 + 1, 3)
    assert "aten::slow_conv3d_forward" in kernels(lambda: net(small))
    assert "aten::mkldnn_convolution" in kernels(lambda: net(large))
    quicken(net)
    seen = kernels(lambda: net(small).sum().backward())
    assert "aten::mkldnn_convolution" in seen
    assert not [name for name in seen if "slow_conv3d" in name]
    assert "aten::cat" not in kernels(lambda: net(large))


def test_only_what_can_be_slow_is_changed_and_names_stay():
    net = nn.Sequential(
        nn.Conv3d(4, 4, 3),
        nn.Conv3d(4, 4, (1, 5, 5)),
        nn.Conv3d(4, 4, 1),
        nn.Conv3d(4, 4, 3, padding="same"),
        nn.Conv3d(4, 4, 3, groups=2),
        nn.Conv3d(4, 4, 3, padding_mode="reflect", padding=1),
        nn.ConvTranspose3d(4, 4, 3),
    )
    names, kinds = list(net.state_dict()), [type(module) for module in net]
    memory = [p.data_ptr() for p in net.parameters()]
    with quick(net):
        assert [type(m) is not kind for m, kind in zip(net, kinds, strict=True)] == [True, *[False] * 6]
        assert list(net.state_dict()) == names
        assert all(p.is_contiguous(memory_format=torch.channels_last_3d) for p in net.parameters() if p.ndim == 5)
        with quick(net):  # within another: what that one changed stays changed
            pass
        assert type(net[0]) is not nn.Conv3d
    assert [type(module) for module in net] == kinds
    assert [p.data_ptr() for p in net.parameters()] == memory


def test_half_precision_is_left_to_torch():
    net = nn.Conv3d(16, 8, 3)
    quicken(net)
    with torch.autocast("cpu", torch.bfloat16):
        assert "aten::cat" not in kernels(lambda: net(torch.rand(1, 16, 3, 8, 8)))


def test_what_is_no_module_is_let_through():
    with quick(lambda x: x):
        pass


@pytest.mark.parametrize("kernel", [3, 5])
def test_gradients_in_bfloat16_are_right_on_fewer_sections_than_the_kernel_is_deep(kernel):
    """oneDNN reads memory that is not its own there; the junk makes sure that it finds something."""
    net = nn.Sequential(nn.Conv3d(32, 32, kernel, padding=kernel // 2))
    quicken(net)
    for depth in range(1, kernel + 2):
        x = torch.randn(1, 32, depth, 8, 8)
        y = net(x)
        g = torch.randn_like(y)
        (want,) = torch.autograd.grad(y, net[0].weight, g)
        junk = [torch.full((1 << 18,), float("inf")) for _ in range(8)]
        del junk
        with torch.autocast("cpu", torch.bfloat16):
            half = net(x)
        (got,) = torch.autograd.grad(half, net[0].weight, g.to(half.dtype))
        assert float((got - want).abs().max()) < 0.03 * float(want.abs().max()), depth
