"""Learning rates that fall from layer to layer, and weights of 2-D backbones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deepem.models import fpn, mask_rcnn
from deepem.models.backbones import resnet, vitdet
from deepem.train import weights
from deepem.train.backbone_weights import layer_scales
from deepem.utils import checkpoint
from deepem.utils.errors import InputError

SIZE = (16, 32, 32)


def backbone(**more):
    how = {"resnet_depth": 18, "resnet_width": 4, "norm": "group", "norm_groups": 2, "return_layers": ["p2", "p3"]}
    return lambda in_channels: resnet.create_backbone(in_channels=in_channels, **{**how, **more})


def detector(**more):
    return mask_rcnn.create_model(
        in_spec={"input": (1, *SIZE)}, out_spec={"instance": (1, *SIZE)}, create_backbone=backbone(),
        fpn_width=8, fpn_pool=False, box_width=16, mask_width=[8], **more,
    )  # fmt: skip


def dense():
    return fpn.create_model(
        in_spec={"input": (1, *SIZE)}, out_spec={"affinity": (3, *SIZE)}, create_backbone=backbone(), fpn_width=8
    )


@pytest.mark.parametrize("make", [detector, dense])
def test_rates_fall_from_the_heads_to_the_first_layer(make):
    net = make()
    scale = layer_scales(net, 0.5)
    assert scale.keys() == {name for name, _ in net.named_parameters()}
    heads = {factor for name, factor in scale.items() if not name.startswith("backbone.")}
    assert heads == {1.0}
    body = [factor for name, factor in scale.items() if name.startswith("backbone.body.")]
    assert body == sorted(body)
    assert body[0] == min(scale.values()) == 0.5**net.backbone.num_layers
    assert set(layer_scales(net, 1.0).values()) == {1.0}
    groups = weights.groups(net, [("backbone.body", 0.1)], 0.01, 0.5)
    assert min(group["scale"] for group in groups) == pytest.approx(0.1 * body[0])
    assert sum(len(group["params"]) for group in groups) == len(scale)


def test_a_network_without_layers_is_refused():
    with pytest.raises(InputError, match=r"--layer_decay: got 0.5 for a network without layers"):
        layer_scales(nn.Linear(1, 1), 0.5)


@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_weights_of_a_flat_backbone_fill_that_of_a_detector(tmp_path, key):
    body = detector().backbone.body
    flat = {name: value[:, :, value.shape[2] // 2] if value.ndim == 5 else value for name, value in
            body.state_dict().items()}  # fmt: skip
    state = {**flat, "fc.weight": torch.zeros(3, 3)}
    torch.save(state if key is None else {key: state}, tmp_path / "public.pth")
    net = detector()
    told = weights.pretrain(net, str(tmp_path / "public.pth"))
    assert told.splitlines()[0].endswith(f": {len(flat)} of {len(net.state_dict())} entries taken")
    assert told.splitlines()[-1] == "  in it, but not in the network: fc.weight"
    for name, value in net.backbone.body.state_dict().items():
        if value.ndim == 5:
            assert torch.equal(value[:, :, value.shape[2] // 2], flat[name])
            assert value.count_nonzero() == flat[name].count_nonzero(), "nothing beside the centre"
        else:
            assert torch.equal(value, flat[name])


def test_what_a_run_of_ours_was_trained_with_is_taken_as_it_is(tmp_path):
    one, other = detector(), detector()
    checkpoint.write(tmp_path / "model1.chkpt", {"state_dict": one.state_dict()})
    told = weights.pretrain(other, str(tmp_path / "model1.chkpt"))
    assert told.count("\n") == 0
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_drop_path_draws_from_the_generator_that_each_step_seeds():
    net = vitdet.create_backbone(
        in_channels=1, image_size=(32, 32, 32), patch_size=(16, 16, 16), vit_width=12, vit_depth=2, vit_heads=2,
        pyramid_width=8, global_blocks=1, drop_path=0.5,
    ).train()  # fmt: skip
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        out = net(torch.ones(4, 1, 32, 32, 32))
        found.append(next(iter(out.values())) if isinstance(out, dict) else out)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
