"""Whole models, from patch to logits: they load public checkpoints and give the public numbers."""

from __future__ import annotations

import importlib

import pytest
import torch

from deepem.models import rsunet, rsunet_act, updown, updown_act
from deepem.models.layers import Conv, Crop, OutputBlock, Resample, Scale
from deepem.utils.crop import centre_crop
from deepem.utils.errors import InputError

SPECS = {"in_spec": {"input": (1, 4, 16, 16)}, "out_spec": {"affinity": (3, 4, 16, 16), "mitochondria": (1, 4, 16, 16)}}
SMALL = {**SPECS, "width": [2, 3]}


@pytest.mark.parametrize("case", ["rsunet", "rsunet_width", "rsunet_act_crop", "updown_width"])
def test_state_and_outputs_are_the_public_ones(models, case):
    recorded = models.cases[case]
    model = importlib.import_module(recorded["module"]).create_model(**recorded["opt"])
    assert models.describe(model) == recorded["keys"]
    assert sum(p.numel() for p in model.parameters()) == recorded["n_params"]
    for mode in ("eval", "train"):
        models.fill(model)
        outputs = model.train(mode == "train")(models.input(case))
        assert list(outputs) == recorded["output_order"]
        assert all(models.close(y, models.output(case, mode, head)) for head, y in outputs.items())


@pytest.mark.parametrize("module", [rsunet, rsunet_act, updown, updown_act])
def test_a_patch_that_cannot_be_pooled_names_axis_and_nearest_sizes(module):
    model = module.create_model(**SPECS, width=[2, 3, 4])
    step = 8 if "updown" in module.__name__ else 4
    wants = rf"y = {2 * step} or {3 * step} instead of {2 * step + 2}$"
    for call in (module.output_size, lambda size, **_: model(torch.zeros(1, 1, *size))):
        with pytest.raises(InputError, match=wants):
            call((3, 2 * step + 2, step), width=[2, 3, 4])
    assert module.output_size((3, 2 * step, step), width=[2, 3, 4]) == (3, 2 * step, step)
    assert model(torch.zeros(1, 1, 3, 2 * step, step))["affinity"].shape == (1, 3, 3, 2 * step, step)


def test_depth_takes_the_first_default_widths_and_width_goes_before_it():
    assert rsunet.create_model(**SPECS, depth=2).core.width == (16, 32)
    assert rsunet.create_model(**SPECS, depth=9, width=[2, 3]).core.width == (2, 3)
    with pytest.raises(InputError, match=r"depth: got 7, wants 1 to 6"):
        rsunet.create_model(**SPECS, depth=7)


def test_group_is_channels_per_group_and_must_divide_every_width():
    model = rsunet.create_model(**SPECS, width=[4, 6], group=2)
    groups = {m.num_channels: m.num_groups for m in model.modules() if isinstance(m, torch.nn.GroupNorm)}
    assert groups == {4: 2, 6: 3}
    with pytest.raises(InputError, match=r"group: got 4, .*divides every width, also 6"):
        rsunet_act.create_model(**SPECS, width=[4, 6], group=4)
    with pytest.raises(InputError, match=r"group: got 16"):
        rsunet_act.create_model(**SPECS, width=[4, 6], group=16)


def test_rsunet_has_no_other_activation_and_names_the_model_that_has():
    with pytest.raises(InputError, match="rsunet_act"):
        rsunet.create_model(**SMALL, act="ELU")


@pytest.mark.parametrize("size", [(4, 16, 16), (5, 16, 22)])
@pytest.mark.parametrize("kept", [(3, 15, 16), (2, 11, 5)])
def test_crop_is_exact_and_shares_the_centre_voxel(size, kept):
    x = torch.arange(torch.Size(size).numel()).reshape(1, 1, *size)
    fractions = [k / s for k, s in zip(kept, size, strict=True)]
    assert torch.equal(Crop(fractions)(x), centre_crop(x, kept))


def test_crop_takes_the_dict_of_heads_too():
    x = torch.rand(1, 2, 4, 16, 16)
    heads = {"affinity": x, "mitochondria": x[:, :1]}
    cropped = Crop((0.5, 0.25, 1))(heads)
    assert list(cropped) == list(heads)
    for name, head in heads.items():
        assert torch.equal(cropped[name], centre_crop(head, (2, 4, 16)))


def test_scale_is_one_learnable_factor():
    scale = Scale(init_value=0.5)
    x = torch.tensor([2.0, -4.0])
    assert torch.equal(scale(x), x / 2)
    assert list(scale.state_dict()) == ["scale"]
    scale(x).sum().backward()
    assert scale.scale.grad == -2
    assert torch.equal(Scale()(x), x)


def test_conv_has_the_public_defaults():
    conv = Conv(2, 3)
    assert conv.conv.kernel_size == (3, 3, 3)
    assert conv.conv.bias is None
    assert conv(torch.zeros(1, 2, 4, 6, 8)).shape == (1, 3, 4, 6, 8)
    assert Conv(2, 3, stride=(1, 2, 2))(torch.zeros(1, 2, 4, 6, 8)).shape == (1, 3, 4, 3, 4)


def test_a_crop_of_every_possible_size_loses_no_voxel():
    for fov in range(1, 300, 7):
        for out in range(1, fov + 1):
            assert Crop((out / fov,) * 3)(torch.empty(1, 1, fov, 1, 1).expand(-1, -1, -1, fov, fov)).shape[-1] == out


def test_crop_larger_than_the_patch_is_refused():
    with pytest.raises(InputError, match="outputsz"):
        Crop((1, 1.5, 1))


def test_only_the_act_models_crop():
    x = torch.zeros(1, 1, 4, 16, 16)
    for module in (rsunet, updown):
        assert module.create_model(**SMALL, cropsz=(0.5, 0.5, 0.5))(x)["affinity"].shape[-3:] == (4, 16, 16)
    for module in (rsunet_act, updown_act):
        assert module.create_model(**SMALL, cropsz=(0.5, 0.25, 0.5))(x)["affinity"].shape[-3:] == (2, 4, 8)


def test_heads_keep_the_order_of_the_spec_and_start_without_bias():
    heads = OutputBlock(2, {"psd": (1, 1, 1, 1), "affinity": (3, 1, 1, 1)})
    assert [k for k in heads.state_dict() if "weight" in k] == ["psd.conv.weight", "affinity.conv.weight"]
    assert not heads.affinity.conv.bias.any()
    assert Conv(2, 3, (1, 5, 5)).conv.bias is None


def test_resample_averages_down_and_interpolates_up():
    x = torch.arange(16.0).reshape(1, 1, 1, 4, 4)
    assert Resample((1, 0.5, 0.5))(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.allclose(Resample((1, 2, 2))(torch.full((1, 1, 2, 3, 3), 7.0)), torch.tensor(7.0))
    with pytest.raises(ValueError, match="all raise or all lower"):
        Resample((1, 2, 0.5))
