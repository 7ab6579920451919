"""Four dimensions: convolutions against brute force, the length axis until it is dropped."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from deepem.models.cnnectome.length import Conv4d
from deepem.models.cnnectome_unet import CNNectomeUNetModule, ConvPass, Upsample
from deepem.utils.errors import InputError


def brute_force(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, padding: str) -> torch.Tensor:
    """A four-dimensional convolution by its definition, voxel by voxel."""
    kernel = weight.shape[2:]
    if padding == "same":
        pads = [(p, k - 1 - p) for k in reversed(kernel) for p in [(k - 1) // 2]]
        x = torch.nn.functional.pad(x, [n for pad in pads for n in pad])
    size = [n - k + 1 for n, k in zip(x.shape[2:], kernel, strict=True)]
    voxels = []
    for begin in product(*map(range, size)):
        box = x[(..., *(slice(b, b + k) for b, k in zip(begin, kernel, strict=True)))]
        voxels.append(torch.einsum("nclzyx,oclzyx->no", box, weight) + bias)
    return torch.stack(voxels, -1).reshape(x.shape[0], weight.shape[0], *size)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kernel", [(3, 3, 3, 3), (2, 1, 3, 2), (1, 2, 1, 3), (3, 1, 1, 1)])
def test_values_and_gradients_are_those_of_brute_force(kernel, padding):
    conv = Conv4d(2, 3, kernel, padding).double()
    inputs = torch.randn(2, 2, 4, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    results = []
    for output in (conv(inputs), brute_force(inputs, conv.weight, conv.bias, padding)):
        upstream = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).reshape(output.shape)
        results.append((output, *torch.autograd.grad((output * upstream).sum(), [inputs, conv.weight, conv.bias])))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


def test_a_frame_on_its_own_is_a_padded_clip_of_one():
    conv = Conv4d(1, 2, (3, 3, 1, 1), "same")
    x = torch.randn(1, 1, 1, 5, 4, 4)
    torch.testing.assert_close(conv(x[:, :, 0]), conv(x)[:, :, 0])
    with pytest.raises(InputError, match="length axis: got one frame, wants 3 or more"):
        Conv4d(1, 2, (3, 3, 1, 1))(x[:, :, 0])
    with pytest.raises(InputError, match="length axis: got 2 frames, wants 3 or more"):
        Conv4d(1, 2, (3, 3, 1, 1))(torch.zeros(1, 1, 2, 5, 4, 4))


def test_weights_begin_as_those_of_torch_do():
    ours, torchs = Conv4d(3, 400, (2, 3, 3, 2)), torch.nn.Conv3d(3, 400, (6, 3, 2))
    for one, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert float(one.detach().std()) == pytest.approx(float(other.detach().std()), rel=0.1)
        assert float(one.detach().abs().max()) == pytest.approx(float(other.detach().abs().max()), rel=0.05)


def test_a_pass_drops_the_axis_once_it_is_one():
    make = ConvPass(1, 2, [(3, 3, 3, 3), (1, 3, 3), (2, 1, 1, 1)], "ReLU").eval()
    assert make(torch.zeros(1, 1, 4, 5, 5, 5)).shape == (1, 2, 3, 1, 1), "4 frames, 2, 2, 1"
    assert make(torch.zeros(1, 1, 5, 5, 5, 5)).shape == (1, 2, 2, 3, 1, 1)
    assert make.dims == 4
    plain = ConvPass(1, 2, [3], None)
    assert plain(torch.zeros(1, 1, 1, 5, 5, 5)).shape == (1, 2, 3, 3, 3), "there is nothing to convolve along it"


@pytest.mark.parametrize("training", [True, False])
def test_layers_of_three_dimensions_see_every_frame(training):
    """Convolutions each for itself, the norm all of them at once: as with the frames in the batch."""
    make = ConvPass(2, 3, [(3, 3, 3), (1, 1, 1)], "ReLU").double().train(training)
    x = torch.randn(2, 2, 3, 5, 4, 4, dtype=torch.float64)
    frames = torch.cat([x[:, :, i] for i in range(3)])
    torch.testing.assert_close(torch.cat(list(make(x).unbind(2))), make(frames))


DOWN = [[(3, 3, 3, 3), (1, 3, 3)], [(3, 1, 3, 3)], [(1, 3, 3)]]
UP = [[(3, 1, 3, 3)], [(1, 1, 3)]]


def flattened(x: torch.Tensor) -> torch.Tensor:
    return x if x.dim() == 6 else x.unsqueeze(2)


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize(("length", "left"), [(7, 1), (8, 2), (9, 3)])
def test_every_frame_and_every_parameter_counts(length, left, attention):
    net = CNNectomeUNetModule(1, 2, 2, [(1, 2, 2), (1, 2, 2)], DOWN, UP, batch_norm=False, use_attention=attention)
    assert net.sizes.length(length) == left
    x = torch.randn(1, 1, length, 8, 40, 44, requires_grad=True)
    out = net(x)
    assert out.dim() == (6 if left > 1 else 5)
    assert flattened(out).shape == (1, 2, left, *net.sizes.output_size((8, 40, 44)))
    out.sum().backward()
    assert x.grad.abs().sum((0, 1, 3, 4, 5)).gt(0).all(), "every frame counts"
    assert all(p.grad is not None for p in net.parameters())


def test_a_network_of_four_dimensions_is_what_one_writes_by_hand():
    """3 frames, 2 after the first convolution, 1 after the second; the middle one of 2 frames is the first."""
    kernels = [[(2, 1, 3, 3)], [(2, 1, 1, 2)]], [[(1, 1, 1)]]
    net = CNNectomeUNetModule(1, 2, 2, [(1, 2, 2)], *kernels, batch_norm=False, equivariant=False).double()
    x = torch.randn(2, 1, 3, 2, 8, 10, dtype=torch.float64)
    first, second = (net.l_conv[i].conv_pass[0] for i in range(2))
    skip = brute_force(x, first.weight, first.bias, "valid").relu()
    pooled = torch.stack([F.max_pool3d(frame, (1, 2, 2)) for frame in skip.unbind(2)], 2)
    bottom = brute_force(pooled, second.weight, second.bias, "valid").relu()[:, :, 0]
    up = net.r_up[0][0].up(bottom)
    assert up.shape[-3:] == (2, 6, 6)
    want = net.r_conv[0][0](torch.cat([skip[:, :, 0, :, :, 1:7], up], 1))
    torch.testing.assert_close(net(x), want)


def test_without_attention_a_longer_clip_gives_what_shorter_ones_give():
    """Valid along the length: frame i of the output depends on 7 frames from i on alone."""
    net = CNNectomeUNetModule(1, 2, 2, [(1, 2, 2), (1, 2, 2)], DOWN, UP).eval()
    x = torch.randn(1, 1, 9, 8, 40, 44)
    with torch.no_grad():
        whole = net(x)
        for i in range(3):
            torch.testing.assert_close(net(x[:, :, i : i + 7]), whole[:, :, i], atol=1e-5, rtol=1e-4)


def test_too_short_a_clip_is_refused_before_anything_is_computed():
    net = CNNectomeUNetModule(1, 2, 2, [(1, 2, 2), (1, 2, 2)], DOWN, UP)
    net.l_conv[0].register_forward_hook(lambda *_: pytest.fail("computed"))
    with pytest.raises(InputError, match="a length of 6, wants 7 or more"):
        net(torch.zeros(1, 1, 6, 8, 40, 44))
    with pytest.raises(InputError, match="a length of 1, wants 7 or more"):
        net(torch.zeros(1, 1, 8, 40, 44))


def test_the_axis_stays_where_convolutions_are_padded_or_flat():
    padded = CNNectomeUNetModule(1, 2, 1, [(1, 2, 2)], [[(3, 3, 3, 3)]], [[(3, 3, 3, 3)]], padding="same")
    assert padded(torch.zeros(1, 1, 3, 6, 8, 8)).shape == (1, 2, 3, 6, 8, 8)
    assert padded(torch.zeros(1, 1, 1, 6, 8, 8)).shape == (1, 2, 6, 8, 8)
    flat = CNNectomeUNetModule(1, 2, 1, [(1, 2, 2)])
    assert flat(torch.zeros(1, 1, 3, 13, 20, 20)).shape[:3] == (1, 2, 3)


def test_a_skip_with_frames_meets_maps_without():
    upsample = Upsample((1, 1, 1), in_channels=1, out_channels=1)
    skip = torch.arange(5.0).view(1, 1, 5, 1, 1, 1).expand(1, 1, 5, 2, 2, 2)
    assert upsample(torch.zeros(1, 1, 2, 2, 2), skip)[:, 0].eq(2).all()
    kept = upsample(torch.zeros(1, 1, 3, 2, 2, 2), skip)
    assert kept[0, 0, :, 0, 0, 0].tolist() == [1, 2, 3]


def test_a_network_of_four_dimensions_can_be_exported_and_traced_whole():
    net = CNNectomeUNetModule(1, 2, 2, [(1, 2, 2)], [[(2, 1, 3, 3)], [(2, 1, 1, 1)]], [[(1, 1, 3)]]).eval()
    x = torch.randn(2, 1, 4, 2, 14, 16)
    with torch.no_grad():
        want = net(x)
        torch.testing.assert_close(torch.export.export(net, (x,)).module()(x), want)
        torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="eager")(x), want)


def test_attention_weighs_the_middle_frame_once_the_coarse_maps_have_lost_their_length():
    net = CNNectomeUNetModule(1, 2, 2, [(1, 2, 2)], [[(1, 1, 3, 3)], [(3, 1, 1, 1)]], [[1]], use_attention=True).eval()
    x = torch.randn(1, 1, 3, 2, 8, 10)
    skip = net.l_conv[0](x)
    bottom = net.l_conv[1](net.l_down[0](skip))
    assert bottom.dim() == 5
    weighed = net.attention[0][0](bottom, skip[:, :, 1])
    torch.testing.assert_close(net(x), net.r_conv[0][0](net.r_up[0][0](bottom, weighed)))
