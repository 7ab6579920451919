"""The network family: states and outputs of the public library, and what its public code could not do."""

from __future__ import annotations

import math
import types

import pytest
import torch

from deepem.models import emvision
from deepem.models.emvision import layers, utils
from deepem.models.emvision.blocks import Style, conv
from deepem.utils.errors import InputError

WIDTH = [3, 4, 5, 6]
RECORDED = {
    "RSUNet": lambda: emvision.RSUNet(WIDTH),
    "rsunet_gn": lambda: emvision.rsunet_gn([2, 4, 6, 8], group=2),
    "rsunet_act_PReLU": lambda: emvision.rsunet_act(WIDTH, act="PReLU", init=0.1),
    "rsunet_act_nn_ReLU": lambda: emvision.rsunet_act_nn(WIDTH, act="ReLU"),
    "rsunet_2d3d": lambda: emvision.rsunet_2d3d(WIDTH, depth2d=2, kernel2d=(1, 3, 3)),
    "rsunet_v3": lambda: emvision.rsunet_v3(WIDTH),
    "dynamic_rsunet_u2": lambda: emvision.dynamic_rsunet([2, 4, 6, 8], unroll=3),
    "DTU2_small": lambda: emvision.DTU2([2, 3, 4], [(1, 3, 3), (1, 3, 3), (3, 3, 3)], [(1, 2, 2), (2, 2, 2)]),
    "DTU2_default": lambda: emvision.DTU2([2, 3, 4, 5]),
    "vrunet_trilinear": lambda: emvision.vrunet([2, 4, 6, 8], mode="trilinear"),
}
PADDED = {
    "RSUNet": emvision.RSUNet,
    "isoRSUNet": emvision.isoRSUNet,
    "rsunet_gn": lambda width: emvision.rsunet_gn(width, 1),
    "rsunet_act_gn": lambda width: emvision.rsunet_act_gn(width, 1, "ELU"),
    "rsunet_act_in": lambda width: emvision.rsunet_act_in(width, "LeakyReLU", negative_slope=0.2),
    "rsunet_act_nn": emvision.rsunet_act_nn,
    "rsunet_act_nn_gn": lambda width: emvision.rsunet_act_nn_gn(width, 1),
    "rsunet_2d3d_gn": lambda width: emvision.rsunet_2d3d_gn(width, 1, depth2d=1),
    "rsunet_v3": emvision.rsunet_v3,
    "RUNet": emvision.RUNet,
    "no norm": lambda width: emvision.rsunet_act(width, norm=None),
}


@pytest.mark.parametrize("case", RECORDED)
def test_state_and_outputs_are_the_public_ones(networks, case):
    recorded, model = networks.cases[case], RECORDED[case]()
    assert networks.describe(model) == recorded["keys"]
    assert sum(p.numel() for p in model.parameters()) == recorded["n_params"]
    further = {"unroll": 2} if case == "dynamic_rsunet_u2" else {}
    for mode in ("eval", "train"):
        networks.fill(model)
        x = networks.input(case)
        output = model.train(mode == "train")(x, **further)
        assert networks.close(output, networks.output(case, mode))
        assert torch.equal(x, networks.input(case)), "the caller's tensor is left alone"
    if "skip_crops" in recorded:
        assert list(map(list, model.skip_crops)) == recorded["skip_crops"]


def test_every_name_is_callable_and_none_is_a_module():
    for name in emvision.__all__:
        assert callable(getattr(emvision, name))
        assert not isinstance(getattr(emvision, name), types.ModuleType)


@pytest.mark.parametrize("name", PADDED)
def test_every_variant_keeps_the_size_and_trains(name):
    net = PADDED[name]([2, 3, 4])
    x = torch.randn(2, 2, 4, 8, 12)
    before = x.clone()
    y = net(x)
    y.square().sum().backward()
    assert y.shape == x.shape
    assert torch.equal(x, before)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_default_widths_and_parameter_counts():
    heads_and_input = 16 * 25 + (16 * 25 + 1) * 4
    with torch.device("meta"):
        assert emvision.rsunet_gn().width == (16, 32, 64, 128, 256, 512)
        shallow = emvision.RSUNet((16, 32, 64, 128))
    assert sum(p.numel() for p in shallow.parameters()) == 2655764 - heads_and_input


def test_two_activations_live_side_by_side():
    relu, elu = emvision.rsunet_act([2, 3], "ReLU"), emvision.rsunet_act([2, 3], "ELU")
    elu.load_state_dict(relu.state_dict())
    x = torch.randn(1, 2, 2, 4, 4)
    assert (relu(x) >= 0).all()
    assert (elu(x) < 0).any()
    assert (relu(x) >= 0).all()


def test_only_the_chosen_pass_gets_statistics_and_gradients():
    net = emvision.dynamic_rsunet([2, 3], unroll=3)
    net(torch.randn(1, 2, 2, 4, 4), unroll=2).sum().backward()
    norms = [m for m in net.modules() if isinstance(m, torch.nn.ModuleList) and isinstance(m[0], torch.nn.BatchNorm3d)]
    assert norms
    for bn in norms:
        assert [int(b.num_batches_tracked) for b in bn] == [0, 1, 0]
        assert [b.weight.grad is not None for b in bn] == [False, True, False]


def test_flat_kernels_reach_as_deep_as_told_on_both_ways():
    net = emvision.rsunet_2d3d([2, 3, 4], depth2d=1)
    kernels = [net.iconv.pre.conv, net.dconvs[0][1].pre.conv, net.uconvs[0].conv.pre.conv, net.uconvs[1].conv.pre.conv]
    assert [k.kernel_size[0] for k in kernels] == [1, 3, 3, 1]


@pytest.mark.parametrize("mode", ["trilinear", "bilinear", "nearest"])
def test_valid_network_gives_what_the_public_one_gives(mode):
    net = emvision.vrunet([1, 1, 1, 1], mode=mode)
    assert net.shape.output_size((48, 148, 148)) == (20, 60, 60)
    assert net(torch.zeros(1, 1, 29, 92, 100)).shape[-3:] == (1, 4, 12)
    assert emvision.VRUNet([1, 2]).state_dict().keys() == emvision.vrunet([1, 2]).state_dict().keys()


@pytest.mark.parametrize(("name", "size"), [("vrunet", (33, 40, 80)), ("DTU2", (22, 212, 239))])
def test_valid_network_is_translation_equivariant(name, size):
    """Shifted by whole poolings the output shifts along: no padding, no off-by-one crop of a skip."""
    net = (emvision.vrunet([2, 2]) if name == "vrunet" else emvision.DTU2([1, 1, 1, 1])).eval()
    step = net.shape.period[2]
    x = torch.randn(1, net.width[0], *size)
    with torch.no_grad():
        whole, shifted = net(x), net(x[..., step:])
    margin = 8 * step if name == "vrunet" else 0  # its residual convolutions are padded
    inner = slice(margin, shifted.shape[-1] - margin)
    assert torch.allclose(whole[..., step:][..., inner], shifted[..., inner], atol=1e-5)


def test_sizes_that_cannot_be_pooled_are_named_with_the_nearest_that_can():
    with pytest.raises(InputError, match=r"network input: got 4,10,12, wants .* y = 8 or 12 instead of 10$"):
        emvision.RSUNet([2, 2, 2])(torch.zeros(1, 2, 4, 10, 12))
    with pytest.raises(InputError, match=r"z = 4 or 6 instead of 5; x = 4 instead of 1$"):
        emvision.rsunet_act([2, 2, 2], zfactor=[1, 2])(torch.zeros(1, 2, 5, 4, 1))
    with pytest.raises(InputError, match="z = 29 instead of 28"):
        emvision.vrunet([1, 1, 1, 1])(torch.zeros(1, 1, 28, 92, 92))


def test_pooling_factors_must_be_one_per_level():
    with pytest.raises(InputError, match=r"zfactor: got 2, wants 2 whole numbers"):
        emvision.rsunet_act([2, 2, 2], zfactor=[2])


@pytest.mark.parametrize("factor", [(1, 2, 2), (2, 2, 2), (3, 3, 3), (1, 3, 3), (2, 4, 2)])
def test_exact_upsampling_interpolates_linearly_inside_and_sees_zeros_outside(factor):
    up = layers.BilinearUp(1, 1, factor)
    assert list(up.state_dict()) == ["weight"]
    assert not list(up.parameters())
    z, y, x = torch.meshgrid(*map(torch.arange, (5.0, 6.0, 7.0)), indexing="ij")
    plane = (z + 10 * y - 3 * x)[None, None]
    wide = torch.nn.functional.interpolate(
        torch.nn.functional.pad(plane, (1,) * 6), scale_factor=tuple(map(float, factor)), mode="trilinear"
    )
    want = utils.crop3d_center(wide, utils.mul3(factor, (5, 6, 7)))
    assert torch.allclose(up(plane), want, atol=1e-4)


def test_public_upsampling_doubles_along_z_and_attenuates_borders():
    ones = torch.ones(1, 1, 4, 4, 4)
    assert layers.BilinearUp(1, 1, (2, 2, 2), exact=False)(ones)[0, 0, 4, 4, 4] == 2
    flat = layers.BilinearUp(1, 1, (1, 2, 2), exact=False)(ones)[0, 0, 0]
    assert flat[4, 4] == 1
    assert flat[0, 4] == 0.75
    assert flat[0, 0] == 0.5625
    with pytest.raises(ValueError, match="y and x differ"):
        layers.BilinearUp(1, 1, (1, 2, 3), exact=False)


def test_an_old_checkpoint_brings_its_own_upsampling():
    old, new = (emvision.rsunet_act([2, 3], zfactor=[2], up=up).eval() for up in ("bilinear", "exact"))
    x = torch.randn(1, 2, 4, 4, 4)
    assert not torch.allclose(old(x), new(x))
    new.load_state_dict(old.state_dict())
    assert torch.equal(old(x), new(x))


@pytest.mark.parametrize(
    ("act", "options"), [("ReLU", {}), ("LeakyReLU", {"negative_slope": 0.3}), ("PReLU", {"init": 0.1}), ("ELU", {})]
)
def test_gain_keeps_the_mean_square_of_normal_values(act, options):
    made = layers.activation(act, inplace=False, **options)
    x = torch.randn(400_000)
    assert math.isclose(layers.gain(act, **options) ** 2 * made(x).detach().square().mean(), 1, rel_tol=0.02)
    weight = conv(40, 50, 3, Style(act=act, act_options=options)).weight
    assert math.isclose(weight.detach().std(), layers.gain(act, **options) / math.sqrt(40 * 27), rel_tol=0.02)


def test_unknown_activation_is_named():
    with pytest.raises(InputError, match="act: got GELU, wants one of ReLU"):
        emvision.rsunet_act([2, 3], act="GELU")


def test_arithmetic_of_triples_crops_and_pads():
    assert utils.sum3((1, 2, 3), (4, 5, 6), 1) == (6, 8, 10)
    assert utils.mul3((1, 2, 3), 2) == (2, 4, 6)
    assert utils.div3((7, 9, 3), (2, 3, 3)) == (3, 3, 1)
    assert [utils.pad_size((1, 3, 5), mode) for mode in ("valid", "same", "full")] == [(0,) * 3, (0, 1, 2), (0, 2, 4)]
    with pytest.raises(ValueError, match="odd"):
        utils.pad_size(2, "same")
    x = torch.arange(4 * 5 * 6.0).reshape(1, 1, 4, 5, 6)
    assert torch.equal(utils.crop3d(x, (1, 0, 2)), x[..., 1:3, :, 2:4])
    for size in ((3, 3, 3), (4, 2, 5)):
        inner = utils.crop3d_center(x, ref=size)
        assert inner.shape[-3:] == size
        assert torch.equal(utils.crop3d_center(utils.pad3d_center(inner, ref=x), size), inner)
