"""Dense heads on every backbone."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from deepem.models import fpn
from deepem.models.backbones import Hiera, SimpleFeaturePyramid, ViTDet, hiera_t, resnet18
from deepem.models.backbones.resnet import create_backbone as resnet
from deepem.utils.errors import InputError

HEADS = {"affinity": (3, 4, 8, 8), "mitochondria": (1, 4, 8, 8)}
SPECS = {"in_spec": {"input": (2, 4, 8, 8)}, "out_spec": HEADS}
THIN = {"fpn_width": 8, "dense_width": 4}


class Plain(nn.Module):
    """The least that a backbone of somebody else offers: one tensor, channels, strides."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, 6, 3, (1, 3, 3), 1)
        self.out_channels, self.strides = {"last": 6}, {"last": (1, 3, 3)}

    def forward(self, x):
        return self.conv(x)


def small_resnet(in_channels, **options):
    return resnet(in_channels=in_channels, resnet_depth=18, resnet_width=4, **options)


def small_hiera(in_channels):
    return Hiera(32, in_channels, 8, stages=(1, 2, 1), q_pool=2, mask_unit_attn=(True, True, False))


def small_vit(in_channels):
    return SimpleFeaturePyramid(ViTDet(32, 8, in_channels, 16, 2, 2, window_size=2, window_block_indices=(0,)), 6)


BACKBONES = {"resnet": small_resnet, "hiera": small_hiera, "vitdet": small_vit, "somebody's": Plain}


@pytest.fixture(params=BACKBONES)
def make(request):
    return lambda **options: fpn.create_model(**SPECS, create_backbone=BACKBONES[request.param], **{**THIN, **options})


def patch(model, times: int = 1) -> torch.Tensor:
    return torch.rand(2, 2, *(times * n for n in model.shape.stem))


def test_logits_have_the_size_of_the_patch(make):
    model = make().eval()
    for times in (1, 2):
        x = patch(model, times)
        with torch.no_grad():
            y = model(x)
        assert list(y) == list(HEADS)
        for head, shape in HEADS.items():
            assert y[head].shape == (2, shape[0], *x.shape[-3:])


def test_gradients_reach_every_parameter(make):
    model = make().train()
    sum(y.square().mean() for y in model(patch(model, 2)).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_a_few_steps_learn_a_thin_line(make):
    """One voxel wide, so it does not survive at the resolution of the pyramid."""
    torch.manual_seed(0)
    model = make().train()
    x = patch(model)
    line = (torch.rand(x.shape[-2:]) > 0.8).float().expand(2, 1, *x.shape[-3:])
    x[:, :1] = line
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = nn.functional.binary_cross_entropy_with_logits(model(x)["mitochondria"], line)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_the_size_is_checked_before_the_network_runs():
    assert fpn.output_size((32, 64, 96)) == (32, 64, 96)
    assert fpn.output_size((5, 30, 33), create_backbone=Plain) == (5, 30, 33)
    with pytest.raises(InputError, match="z = 32 instead of 20; x = 256 or 288 instead of 260"):
        fpn.output_size((20, 256, 260))
    thick = lambda in_channels: small_resnet(  # noqa: E731
        in_channels, stem_stride=(1, 2, 2), pool_stride=(1, 2, 2), stage_zstride=(1, 1, 2)
    )
    assert fpn.output_size((20, 256, 256), create_backbone=thick) == (20, 256, 256)
    model = fpn.create_model(**SPECS, create_backbone=Plain, **THIN)
    with pytest.raises(InputError, match="y = 6 or 9 instead of 8"):
        model(torch.rand(1, 2, 4, 8, 9))


def test_every_backbone_of_the_folder_serves_dense_heads():
    plug_ins = [
        importlib.import_module(f"deepem.models.backbones.{name}") for name in ("resnet50", "hiera_t", "vitdet")
    ]
    for create in (*(plug_in.create_backbone for plug_in in plug_ins), resnet18, hiera_t, ViTDet):
        with torch.device("meta"):
            model = fpn.create_model(**SPECS, create_backbone=create).eval()
            size = fpn.output_size((32, 64, 32), create_backbone=create)
            assert model(torch.empty(1, 2, *size))["affinity"].shape == (1, 3, *size)


class Levels(nn.Module):
    """A pyramid of constant maps."""

    is_pyramid = True
    out_channels, strides = {"p2": 3, "p3": 3}, {"p2": (1, 2, 2), "p3": (1, 4, 4)}
    values = (0.0, 0.0)

    def forward(self, x):
        sizes = [[n // s for n, s in zip(x.shape[-3:], stride, strict=True)] for stride in self.strides.values()]
        return {
            name: torch.full((len(x), 3, *size), value)
            for name, size, value in zip(self.strides, sizes, self.values, strict=True)
        }


def test_every_level_of_the_pyramid_is_used():
    model = fpn.create_model(**SPECS, create_backbone=lambda in_channels: Levels(), **THIN).eval()
    x, results = torch.rand(1, 2, 3, 8, 8), []
    for values in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)):
        model.backbone.values = values
        with torch.no_grad():
            results.append(model(x)["affinity"])
    assert not torch.allclose(results[0], results[1])
    for other in results[2:]:  # their sum is what counts
        assert torch.allclose(results[1], other, atol=1e-6)


def test_the_output_is_cropped_around_the_same_centre(make):
    whole, part = make().eval(), make(cropsz=(1, 1 / 2, 1 / 3)).eval()
    part.load_state_dict(whole.state_dict())
    x = patch(whole, 2)
    with torch.no_grad():
        a, b = whole(x)["affinity"], part(x)["affinity"]
    size = [round(n * f) for n, f in zip(x.shape[-3:], (1, 1 / 2, 1 / 3), strict=True)]
    begin = [n // 2 - s // 2 for n, s in zip(x.shape[-3:], size, strict=True)]
    z, y, x_ = (slice(o, o + s) for o, s in zip(begin, size, strict=True))
    assert torch.equal(a[..., z, y, x_], b)


def test_a_shift_by_the_stride_shifts_the_output():
    def create(in_channels):
        return small_resnet(in_channels, stem_stride=(1, 2, 2), pool_stride=(1, 2, 2), return_layers=["p2"])

    torch.manual_seed(0)
    model = fpn.create_model(**SPECS, create_backbone=create, **THIN).eval()
    assert model.shape.stem == (1, 4, 4)
    x = torch.randn(1, 2, 2, 8, 160)
    with torch.no_grad():
        whole, shifted = model(x)["affinity"], model(x[..., 4:])["affinity"]
    inner = slice(64, -64)  # beyond the reach of the zeros around the patch
    assert torch.allclose(whole[..., 4:][..., inner], shifted[..., inner], atol=1e-5)
    assert not torch.allclose(whole[..., 4:], shifted, atol=1e-5)


def test_recomputing_changes_nothing(make):
    plain, saving = make(), make(checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    x = patch(plain)
    for model in (plain, saving):
        torch.manual_seed(0)
        sum(y.square().mean() for y in model(x).values()).backward()
    for (name, a), b in zip(plain.state_dict().items(), saving.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6, rtol=1e-4), name


def test_layers_run_from_the_stem_to_the_heads():
    model = fpn.create_model(**SPECS, create_backbone=small_resnet, **THIN)
    assert model.num_layers == 7
    layers = {name: model.layer_of(name) for name, _ in model.named_parameters()}
    assert layers["backbone.body.conv1.weight"] == 0
    assert layers["backbone.body.layer4.1.bn2.weight"] == 4
    assert layers["backbone.fpn.inner_blocks.0.0.weight"] == 5
    assert layers["out.affinity.conv.weight"] == layers["up.lateral.weight"] == 6
    plain = fpn.create_model(**SPECS, create_backbone=Plain, **THIN)
    assert {plain.layer_of(name) for name, _ in plain.named_parameters()} == set(range(plain.num_layers))


def off(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((got.detach().float() - want.detach()).abs().max() / want.detach().abs().max())


@pytest.mark.slow
def test_compiled_exported_in_bfloat16_and_channels_last_it_gives_the_eager_figures(make):
    torch.manual_seed(0)
    model = make().eval()
    x = patch(model, 2)
    with torch.no_grad():
        want = model(x)["affinity"]
        torch._dynamo.reset()
        assert off(torch.compile(model, fullgraph=True)(x)["affinity"], want) < 1e-4
        assert off(torch.export.export(model, (x,)).module()(x)["affinity"], want) < 1e-4
        with torch.autocast("cpu", torch.bfloat16):
            assert off(model(x)["affinity"], want) < 0.15
        last = model.to(memory_format=torch.channels_last_3d)
        assert off(last(x.to(memory_format=torch.channels_last_3d))["affinity"], want) < 1e-4
