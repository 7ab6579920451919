"""The summary of a model states what can be checked by hand."""

from __future__ import annotations

import functools
import re

import pytest
import torch

from deepem.models import fpn, mednext, rsunet, rsunet_act, vrunet
from deepem.models.backbones import resnet, vitdet
from deepem.models.emvision.receptive_field import receptive_field
from deepem.models.emvision.sizes import UShape
from deepem.tools import summary

SPECS = {"in_spec": {"input": (1, 1, 1, 1)}, "out_spec": {"affinity": (1, 1, 1, 1)}}


@pytest.mark.parametrize(
    ("model", "field"),
    [
        # In y and x: 1 + 2 * 4 for the 5x5 convolutions at both ends + 8 convolutions of 3.
        (rsunet.create_model(**SPECS, width=[1]), (9, 17, 17)),
        (rsunet_act.create_model(**SPECS, width=[1, 1], zfactor=[1], upsampling="nearest"), (25, 42, 42)),
        (vrunet.create_model(**SPECS, width=[1], mode="nearest"), (9, 17, 17)),
    ],
)
def test_receptive_field(model, field):
    assert receptive_field(model, model.shape) == field


def test_receptive_field_is_what_gradients_reach():
    """Weights all positive: every voxel of the field has a gradient, no other."""
    model = rsunet_act.create_model(**SPECS, width=[1, 1], norm="none", act="ELU").double().eval()
    for m in model.modules():
        if isinstance(m, torch.nn.MaxPool3d):
            m.forward = lambda x: torch.nn.functional.avg_pool3d(x, (1, 2, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1 / max(1, p[0].numel()) if p.dim() > 1 else 0)
    x = torch.rand(1, 1, 1, 2, 80, dtype=torch.float64, requires_grad=True)
    y = model(x)["affinity"].sum((0, 1, 2, 3))
    widths = []
    for voxel in (40, 41):
        (gradient,) = torch.autograd.grad(y[voxel], x, retain_graph=True)
        seen = gradient.abs().sum((0, 1, 2, 3)).nonzero().flatten()
        widths.append(int(seen[-1] - seen[0]) + 1)
    assert receptive_field(model, model.shape)[2] == max(widths)


def test_squeeze_excitation_sees_the_whole_patch():
    model = rsunet_act.create_model(**SPECS, width=[1, 1], squeeze_excitation=True)
    assert receptive_field(model, model.shape) is None


def test_attention_sees_the_whole_patch():
    tokens = {"patch_size": (4, 8, 8), "image_size": (16, 32, 32), "vit_width": 8, "vit_depth": 1, "vit_heads": 1}
    create = functools.partial(vitdet.create_backbone, global_blocks=1, **tokens)
    model = fpn.create_model(**SPECS, create_backbone=create, dense_width=4, fpn_width=4)
    assert receptive_field(model, model.shape) is None


def test_receptive_field_of_a_resnet_and_of_mednext():
    """By hand: 7 of the stem, 2 * 2 of the pool at stride 2, 4 convolutions of 3 at stride 4 in the first stage."""
    net = resnet.create_backbone(in_channels=1, resnet_depth=18, resnet_width=4, return_layers=["p2"])
    net.shape, net.forward = UShape((), stem=(4, 4, 4)), functools.partial(finest, net.forward)
    assert receptive_field(net, net.shape) == (7 + 2 * 2 + 4 * 2 * 4,) * 3
    model = mednext.create_model(**SPECS, width=[2, 2], depth2d=2, norm="batch")
    assert receptive_field(model, model.shape)[0] == 1  # flat kernels


def finest(forward, x):
    """The finest map of a backbone, as the output of a network."""
    return {"output": forward(x)["p2"]}


def test_printed_summary(capsys):
    words = ["--model", "vrunet", "--width", "2", "3", "--fov", "24,44,44", "--voxel_size_nm", "40,4,4"]
    summary.main(words)
    rows = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if line[:10] == "parameters")
    count = sum(
        p.numel() for p in vrunet.create_model(**{**SPECS, "out_spec": {"a": (3, 1, 1, 1)}}, width=[2, 3]).parameters()
    )
    assert rows == {"parameters": f"{count:,}"}


def test_flops_count_two_per_multiply_and_add(capsys):
    summary.main(["--model", "rsunet", "--width", "1", "--fov", "4,8,8", "--channels", "1"])
    out = capsys.readouterr().out
    assert f"{2 * (25 + 4 * 27 + 25)} forward" in out
    assert "4,8,8 -> 4,8,8" in out


def test_a_patch_that_does_not_fit_is_refused_in_one_line(capsys):
    with pytest.raises(SystemExit, match="2"):
        summary.main(["--model", "rsunet", "--fov", "4,7,8"])
    error = capsys.readouterr().err
    assert error.startswith("deepem summary: error: ")
    assert "y = 8 instead of 7" in error
    assert error.count("\n") == 1


def test_context_of_a_valid_network_and_what_padding_costs(capsys):
    """One pooling in y and x, three convolutions of 3x3x3: they take 2 + 2 + 2 of z, 2 + 4 + 2 of y and x."""
    kernels = "--kernel_size_down 3,3,3 / 3,3,3 --kernel_size_up 3,3,3 --downsample_factors 1,2,2"
    small = "--num_fmaps 1 --fmap_inc_factor 1 --channels 1 --fov 10,20,22 --voxel_size_nm 40,4,4"
    summary.main(f"--model cnnectome_unet {kernels} {small}".split())
    rows = dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines() if line[0] != " ")
    assert rows["patch"] == "10,20,22 -> 4,12,14"
    assert rows["context"] == "6,8,8 voxels z,y,x = 240,32,32 nm, both sides together"
    assert rows["smallest patch"] == "7,10,10 (7,10,10 in training)"
    assert rows["step between patches"] == "1,2,2"
    down, bottom, up = 8 * 18 * 20, 6 * 7 * 8, 4 * 12 * 14
    kernels_of_27 = down + bottom + 2 * up  # the way up has two channels in
    points = 6 * 14 * 16 + up  # of 1x1x1: behind the nearest neighbour, and the head
    assert rows["FLOPs per output voxel"].startswith(f"{2 * (27 * kernels_of_27 + points) / up:,.0f} ")
    assert "with padding valid (10,20,22)" in rows["FLOPs at whole context"]
    assert re.search(r"with same \(10,20,22\), [1-9]\.\d\d times", rows["FLOPs at whole context"])
