"""The settings object and the wrapper; the blocks' attributes, arguments and refusals."""

from __future__ import annotations

import dataclasses
import inspect
from types import SimpleNamespace

import pytest
import torch

from deepem.models.cnnectome.superres import SuperResolution
from deepem.models.cnnectome_unet import (
    AttentionBlockModule,
    CNNectomeUNet,
    CNNectomeUNetConfig,
    CNNectomeUNetModule,
    ConvPass,
    Downsample,
    Upsample,
)
from deepem.utils.errors import InputError

NEEDED = {
    "input_shape": (28, 44, 44),
    "fmaps_out": 3,
    "fmaps_in": 1,
    "num_fmaps": 2,
    "fmap_inc_factor": 2,
    "downsample_factors": [(1, 2, 2), (2, 2, 2)],
}
SIGNATURES = {
    CNNectomeUNetModule: (
        "in_channels num_fmaps fmap_inc_factor downsample_factors kernel_size_down=None kernel_size_up=None "
        "activation='ReLU' num_fmaps_out=None num_heads=1 constant_upsample=False padding='valid' "
        "upsample_channel_contraction=False activation_on_upsample=False use_attention=False batch_norm=True "
        "pooling='max' equivariant=True"
    ),
    ConvPass: "in_channels out_channels kernel_sizes activation padding='valid' batch_norm=True",
    Downsample: "downsample_factor pooling='max'",
    Upsample: (
        "scale_factor mode='transposed_conv' in_channels=None out_channels=None crop_factor=None "
        "next_conv_kernel_sizes=None activation=None equivariant=True centred=False"
    ),
    AttentionBlockModule: "F_g F_l F_int dims upsample_factor=None batch_norm=True",
    CNNectomeUNet: "architecture_config",
}
ATTRIBUTES = {
    CNNectomeUNetModule: (
        "num_levels num_heads in_channels out_channels dims use_attention batch_norm l_conv l_down r_up r_conv "
        "kernel_size_down kernel_size_up fmap_inc_factor downsample_factors constant_upsample padding "
        "upsample_channel_contraction activation_on_upsample attention"
    ),
    ConvPass: "dims conv_pass",
    Downsample: "dims downsample_factor down",
    Upsample: "crop_factor next_conv_kernel_sizes dims up",
    AttentionBlockModule: "dims kernel_sizes upsample_factor batch_norm W_g W_x psi up relu",
}
MADE = {
    CNNectomeUNetModule: lambda: CNNectomeUNetModule(1, 2, 2, [(1, 2, 2)], use_attention=True),
    ConvPass: lambda: ConvPass(1, 1, [3], None),
    Downsample: lambda: Downsample((1, 2)),
    Upsample: lambda: Upsample((1, 2), in_channels=1, out_channels=1),
    AttentionBlockModule: lambda: AttentionBlockModule(1, 1, 1, 3),
}


@pytest.mark.parametrize("kind", SIGNATURES)
def test_arguments_are_the_documented_ones(kind):
    parameters = list(inspect.signature(kind).parameters.values())
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters]
    assert " ".join(shown) == SIGNATURES[kind]


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_documented_attributes_are_there(kind):
    made = MADE[kind]()
    assert [name for name in ATTRIBUTES[kind].split() if not hasattr(made, name)] == []


def test_every_setting_is_an_attribute_of_the_wrapper():
    config = CNNectomeUNetConfig(**NEEDED, eval_shape_increase=(8, 8, 8), voxel_size=(40, 4, 4))
    net = CNNectomeUNet(config)
    for name in (field.name for field in dataclasses.fields(config)):
        if name not in ("fov", "voxel_size"):
            assert getattr(net, name) == getattr(config, name), name
    assert (net.dims, net.num_in_channels, net.num_out_channels) == (3, 1, 3)
    assert (net.fov, net.voxel_size) == ((1, 1, 1), (40, 4, 4))
    assert isinstance(net.unet, CNNectomeUNetModule)
    assert net.module() is not net.unet
    assert list(net.state_dict()) == [f"unet.{key}" for key in net.module().state_dict()]
    assert net(torch.zeros(1, 1, 28, 44, 44)).shape == (1, 3, 4, 4, 4)


def test_the_config_is_frozen_and_other_objects_do_as_well():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CNNectomeUNetConfig().padding = "same"
    net = CNNectomeUNet(SimpleNamespace(**NEEDED))
    assert list(net.state_dict()) == list(CNNectomeUNet(CNNectomeUNetConfig(**NEEDED)).state_dict())
    assert (net.batch_norm, net.constant_upsample, net.activation_on_upsample) == (False, True, True)


@pytest.mark.parametrize("missing", NEEDED)
def test_a_missing_setting_is_an_attribute_error_that_names_it(missing):
    given = {name: value for name, value in NEEDED.items() if name != missing}
    with pytest.raises(AttributeError, match=rf"the setting {missing} is not given"):
        CNNectomeUNet(CNNectomeUNetConfig(**given))
    net = CNNectomeUNet(CNNectomeUNetConfig(**NEEDED))
    delattr(net, missing)
    with pytest.raises(AttributeError, match=rf"the setting {missing} is not given"):
        net.module()


def test_properties_without_their_setting_name_it():
    net = CNNectomeUNet(CNNectomeUNetConfig(**NEEDED))
    with pytest.raises(AttributeError, match="the setting eval_shape_increase is not given"):
        _ = net.eval_shape_increase
    del net.fmaps_in
    with pytest.raises(AttributeError, match="the setting fmaps_in is not given"):
        _ = net.num_in_channels
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = net.nothing


def test_the_output_voxel_size_under_super_resolution():
    net = CNNectomeUNet(CNNectomeUNetConfig(**NEEDED, upsample_factors=[(2, 1, 1), (5, 1, 2)], padding="same"))
    assert net.scale((40, 4, 4)) == (4, 4, 2)
    assert net.scale((45, 4, 5)) == (4.5, 4, 2.5)
    assert isinstance(net.unet, SuperResolution)
    for wrong in (None, (4, 4)):
        with pytest.raises(ValueError, match="voxel size of 3 axes"):
            net.scale(wrong)


@pytest.mark.parametrize(("padding", "size"), [("valid", (12, 12, 12)), ("same", (16, 16, 16))])
def test_super_resolution_is_valid_unless_told_otherwise(padding, size):
    settings = {**NEEDED, "padding": "same", "upsample_factors": [(2, 1, 1)], "superres_padding": padding}
    assert CNNectomeUNetConfig().superres_padding == "valid"
    net = CNNectomeUNet(CNNectomeUNetConfig(**settings))
    assert net(torch.zeros(1, 1, 8, 16, 16)).shape[2:] == size


def test_the_kernels_of_the_lowest_level_serve_super_resolution():
    settings = {**NEEDED, "kernel_size_up": [[3], [(1, 3, 5), 1]], "upsample_factors": [(2, 1, 1)], "activation": "ELU"}
    _, up, conv = CNNectomeUNet(CNNectomeUNetConfig(**settings)).unet
    assert [type(step).__name__ for step in up.up] == ["Upsample", "Conv3d", "ELU"]
    assert [getattr(step, "kernel_size", None) for step in conv.conv_pass] == [(1, 3, 5), None, (1, 1, 1), None]


def test_kernels_may_be_numbers_and_the_last_list_serves_the_bottom_too():
    short = CNNectomeUNetModule(1, 2, 2, [(1, 2, 2)] * 2, [[3, 1], [(1, 3, 3)]], [[3], [1]])
    long = CNNectomeUNetModule(
        1, 2, 2, [(1, 2, 2)] * 2, [[(3,) * 3, (1,) * 3], [(1, 3, 3)], [(1, 3, 3)]], [[(3,) * 3], [(1,) * 3]]
    )
    shapes = [{key: t.shape for key, t in net.state_dict().items()} for net in (short, long)]
    assert shapes[0] == shapes[1]
    assert short.kernel_size_down == long.kernel_size_down
    flat = CNNectomeUNetModule(1, 2, 2, [(2, 2)], [[3]], [[3]])
    assert flat.l_conv[0].conv_pass[0].kernel_size == (3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"downsample_factors": []}, "downsample_factors: .* 2 or 3 axes"),
        ({"downsample_factors": [(2, 2, 2, 2)]}, "downsample_factors: .* 2 or 3 axes"),
        ({"downsample_factors": [(2, 2), (2, 2, 2)]}, "downsample_factors: .* 2 or 3 axes"),
        ({"downsample_factors": [(0, 2, 2)]}, "downsample_factors: got .*0, 2, 2.* above 0"),
        ({"kernel_size_down": [[3]]}, "kernel_size_down: got 1 lists .* wants 2 or 3 lists"),
        ({"kernel_size_down": [[3], [], [3]]}, "kernel_size_down: .* none empty"),
        ({"kernel_size_up": [[3], [(3, 3)]]}, r"kernel_size_up: got \(3, 3\), wants 3 or 4 whole numbers"),
        ({"kernel_size_up": [[3]] * 3}, "kernel_size_up: got 3 lists .* wants 2 lists"),
        ({"upsample_channel_contraction": [True]}, "upsample_channel_contraction: .* 2, one per level"),
        ({"activation": "Relu"}, "activation: got Relu, wants the name of a class"),
        ({"padding": "full"}, "padding: got full, wants one of valid, same"),
        ({"pooling": "min"}, "pooling: got min, wants one of max, avg"),
        ({"equivariant": "train"}, "equivariant: got train, wants one of True, False, eval"),
        ({"num_heads": 0}, "num_heads.*wants 1 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, message):
    settings = {"downsample_factors": [(1, 2, 2), (2, 2, 2)], **change}
    with pytest.raises(InputError, match=message):
        CNNectomeUNetModule(1, 2, 2, **settings)


def test_pooling_is_the_largest_or_the_average():
    x = torch.arange(8.0).view(1, 1, 2, 2, 2)
    assert Downsample((1, 2, 2))(x).flatten().tolist() == [3, 7]
    assert Downsample((1, 2, 2), "avg")(x).flatten().tolist() == [1.5, 5.5]
    nets = [CNNectomeUNetModule(1, 2, 2, [(2, 2)], pooling=p) for p in ("max", "avg")]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.randn(1, 1, 20, 20)
    assert not torch.allclose(nets[0](x), nets[1](x))


def test_attention_of_gate_and_skip_of_one_size():
    block = AttentionBlockModule(2, 3, 4, 3, batch_norm=False)
    g, x = torch.randn(1, 2, 4, 5, 6), torch.randn(1, 3, 4, 5, 6)
    weight = block.psi((block.W_g(g) + block.W_x(x)).relu())
    torch.testing.assert_close(block(g, x), x * weight)
    assert block(g[..., 1:, 1:4], x).shape == x.shape
    with pytest.raises(RuntimeError, match="a gate that is no larger"):
        block(torch.randn(1, 2, 4, 5, 7), x)
    with pytest.raises(RuntimeError, match="as many of each"):
        block(g, x[0])


def test_an_odd_voxel_of_padding_goes_in_front():
    block = AttentionBlockModule(1, 1, 1, 2)
    padded = block.calculate_and_apply_padding(torch.ones(1, 1, 2, 1), torch.zeros(1, 1, 5, 1))
    assert padded.flatten().tolist() == [0, 0, 1, 1, 0]


def test_upsampling_needs_channels_and_both_parts_of_the_crop():
    with pytest.raises(InputError, match="in_channels, out_channels: got None, None"):
        Upsample((2, 2, 2))
    with pytest.raises(InputError, match="both or neither"):
        Upsample((2, 2), in_channels=1, out_channels=1, crop_factor=(2, 2))
    with pytest.raises(InputError, match="mode: got linear"):
        Upsample((2, 2), "linear", 1, 1)
    with pytest.raises(RuntimeError, match=r"maps of \(9, 4\) or more"):
        Upsample((2, 2), in_channels=1, out_channels=1).crop(torch.zeros(1, 1, 8, 8), (9, 4))


def test_heads_share_the_way_down():
    net = CNNectomeUNetModule(1, 2, 2, [(2, 2)], num_heads=3, batch_norm=False)
    outputs = net(torch.randn(1, 1, 20, 20))
    assert [y.shape for y in outputs] == [outputs[0].shape] * 3
    outputs[1].sum().backward()
    used = {name for name, p in net.named_parameters() if p.grad is not None}
    assert used == {name for name, _ in net.named_parameters() if name.startswith(("l_conv", "r_up.1", "r_conv.1"))}


def test_the_recursion_may_be_entered_at_any_level():
    net = CNNectomeUNetModule(1, 2, 2, [(2, 2)] * 2, batch_norm=False)
    x = torch.randn(1, 1, 60, 60)
    torch.testing.assert_close(net.rec_forward(2, x), net(x))
    below = net.l_down[0](net.l_conv[0](x))
    torch.testing.assert_close(net.r_conv[0][0](net.r_up[0][0](net.rec_forward(1, below), net.l_conv[0](x))), net(x))
    with pytest.raises(RuntimeError, match=r"input of level 1: got 27,28, .* y = 26 or 28"):
        net.rec_forward(1, torch.zeros(1, 2, 27, 28))
    with pytest.raises(InputError, match="level: got 3, wants 0 to 2"):
        net.rec_forward(3, x)
    with pytest.raises(RuntimeError, match=r"network input: got 5 axes .* wants \(N, C, Y, X\)"):
        net(torch.zeros(1, 1, 1, 60, 60))
