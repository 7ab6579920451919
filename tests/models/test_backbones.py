"""What every backbone promises: names, channels, strides, sizes, layers, gradients, memory; and its entry function."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from deepem.cli import signatures
from deepem.models import backbones
from deepem.models.backbones import Hiera, SimpleFeaturePyramid, ViTDet, WithFPN
from deepem.models.backbones.parts.norms import FrozenBatchNorm
from deepem.models.backbones.resnet import create_backbone as resnet
from deepem.utils.errors import InputError

FOLDER = Path(backbones.__file__).parent
PLUG_INS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


def tiny_hiera(**options):
    made = {"embed_dim": 8, "stages": (1, 2, 1), "mask_unit_attn": (True, True, False), "q_pool": 2, "input_size": 32}
    return Hiera(**{**made, **options})


def tiny_vit(**options):
    made = {"image_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "window_size": 2}
    return ViTDet(**{**made, "window_block_indices": (0, 1), "residual_block_indices": (1,), **options})


SMALL = {
    "resnet18": lambda **o: resnet(resnet_depth=18, resnet_width=4, **o),
    "resnet50, group norm": lambda **o: resnet(resnet_depth=50, resnet_width=4, norm="group", norm_groups=2, **o),
    "resnet18, frozen norm": lambda **o: resnet(resnet_depth=18, resnet_width=4, norm="frozen", **o),
    "resnet18, thick sections": lambda **o: resnet(
        resnet_depth=18, resnet_width=4, stem_stride=(1, 2, 2), pool_stride=(1, 2, 2), stage_zstride=(1, 2, 2), **o
    ),
    "hiera": tiny_hiera,
    "hiera, axes apart": lambda **o: tiny_hiera(sep_pos_embed="z_y_x", **o),
    "hiera, thick sections": lambda **o: tiny_hiera(
        input_size=(4, 32, 32),
        q_stride=(1, 2, 2),
        patch_kernel=(1, 7, 7),
        patch_stride=(1, 4, 4),
        patch_padding=(0, 3, 3),
        **o,
    ),
    "vitdet": lambda **o: SimpleFeaturePyramid(tiny_vit(**o), 6),
    "vitdet, thick sections": lambda **o: SimpleFeaturePyramid(
        tiny_vit(image_size=(4, 32, 32), patch_size=(1, 8, 8), window_size=(2, 3, 3), **o), 6
    ),
    "fpn on resnet18": lambda **o: WithFPN(
        resnet(resnet_depth=18, resnet_width=4, **o), 5, backbones.LastLevelMaxPool()
    ),
    "fpn on one map": lambda **o: WithFPN(tiny_vit(**o), 5),
}


@pytest.fixture(params=SMALL)
def make(request):
    return SMALL[request.param]


def image(net, times: int = 1) -> torch.Tensor:
    """Two images a few multiples long."""
    return torch.rand(2, 1, *(times * n for n in net.multiple))


def test_parameter_counts():
    """Those that are stated, one channel in, without classifier."""
    counts = {
        "resnet18": 33_160_000,
        "resnet34": 63_469_632,
        "resnet50": 46_155_072,
        "resnet101": 85_201_216,
        "hiera_t": 26_885_088,
        "hiera_s": 33_982_944,
        "hiera_b": 50_499_840,
        "hiera_bp": 68_700_800,
        "hiera_l": 212_202_720,
    }
    with torch.device("meta"):
        made = {name: getattr(backbones, name)() for name in counts}
        vit = ViTDet(use_rel_pos=False)
    assert {name: sum(p.numel() for p in net.parameters()) for name, net in made.items()} == counts
    assert sum(p.numel() for p in vit.blocks.parameters()) == 85_054_464


def test_maps_have_the_channels_and_strides_that_are_promised(make):
    net = make().eval()
    for times in (1, 2):
        x = image(net, times)
        with torch.no_grad():
            maps = net(x)
        assert list(maps) == list(net.out_channels) == list(net.strides)
        for name, y in maps.items():
            size = tuple(-(-n // s) for n, s in zip(x.shape[-3:], net.strides[name], strict=True))
            assert y.shape == (2, net.out_channels[name], *size), name


def test_thick_sections_keep_their_resolution():
    assert list(SMALL["resnet18, thick sections"]().strides.values()) == [
        (1, 4, 4),
        (1, 8, 8),
        (2, 16, 16),
        (4, 32, 32),
    ]
    assert list(SMALL["hiera, thick sections"]().strides.values()) == [(1, 4, 4), (1, 8, 8), (1, 16, 16)]
    assert list(SMALL["vitdet, thick sections"]().strides.values()) == [(1, 2, 2), (1, 4, 4), (1, 8, 8), (1, 16, 16)]


def test_gradients_reach_every_parameter(make):
    net = make().train()
    sum(y.square().mean() for y in net(image(net, 2)).values()).backward()
    silent = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert silent == []


def test_recomputing_changes_nothing_but_memory(make):
    torch.manual_seed(0)
    plain, saving = make(), make(checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    x = image(plain, 2)
    saved = []
    for net in (plain, saving):
        kept = 0

        def count(t):
            nonlocal kept
            kept += t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            loss = sum(y.square().mean() for y in net(x).values())
        loss.backward()
        saved.append(kept)
    assert saved[1] < 0.8 * saved[0]
    for (name, a), b in zip(plain.state_dict().items(), saving.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6, rtol=1e-4), name


def test_layers_cover_all_parameters_and_grow_with_depth(make):
    """Numbered from 0 without a gap, and in the order in which an image meets them."""
    net = make()
    numbers = [net.layer_of(name) for name, _ in net.named_parameters()]
    assert set(numbers) <= set(range(net.num_layers))
    assert max(numbers) == net.num_layers - 1
    assert sorted(numbers) == numbers
    frozen = any(isinstance(m, FrozenBatchNorm) for m in net.modules())
    assert frozen or set(numbers) == set(range(net.num_layers))


def test_sizes_that_do_not_fit_are_refused_with_those_that_do():
    for net in (tiny_hiera(), tiny_vit()):
        with pytest.raises(InputError, match=r"y = 32 or 48" if isinstance(net, Hiera) else r"y = 32 or 40"):
            net(torch.rand(1, 1, 16, 33, 32))


def test_the_last_stages_can_be_left_out():
    net = resnet(resnet_depth=18, resnet_width=4, return_layers=["p4", "p2"])
    assert list(net(torch.rand(1, 1, 32, 32, 32))) == ["p2", "p4"]
    assert not any(key.startswith("layer4") for key in net.state_dict())
    assert net.multiple == (16, 16, 16)
    for wrong in (["p6"], []):
        with pytest.raises(InputError, match=r"return_layers.*p2 p3 p4 p5"):
            resnet(return_layers=wrong)


def test_a_frozen_norm_is_a_batch_norm_that_does_not_learn():
    batch, frozen = nn.BatchNorm3d(3), FrozenBatchNorm(3)
    for name, t in batch.state_dict().items():
        if name != "num_batches_tracked":
            t.copy_(torch.rand(3) + 0.5)
    frozen.load_state_dict({key: t for key, t in batch.state_dict().items() if key != "num_batches_tracked"})
    x = torch.randn(2, 3, 4, 4, 4)
    before = {key: t.clone() for key, t in frozen.state_dict().items()}
    assert torch.allclose(frozen.train()(x), batch.eval()(x), atol=1e-6)
    assert all(torch.equal(t, before[key]) for key, t in frozen.state_dict().items())
    assert list(frozen.parameters()) == []


@pytest.mark.parametrize("name", PLUG_INS)
def test_every_file_of_the_folder_is_a_plug_in_with_typed_flags(name):
    """Keyword-only, with a default, a type and a help, as the command line takes them."""
    module = importlib.import_module(f"deepem.models.backbones.{name}")
    assert (module.__doc__ or "").strip()
    flags = list(signatures._flags_of(module.create_backbone, str(module.__file__)))
    assert flags
    for flag in flags:
        assert flag.help, flag.name
        assert flag.type is not None
    assert "in_channels" not in [flag.name for flag in flags]
    with torch.device("meta"):
        net = module.create_backbone(in_channels=2).eval()
        assert list(net(torch.empty(1, 2, *net.multiple))) == ["p2", "p3", "p4", "p5"]


def test_a_variant_has_no_flag_for_what_it_fixes():
    variant = importlib.import_module("deepem.models.backbones.resnet50")
    names = {flag.name for flag in signatures._flags_of(variant.create_backbone, "")}
    assert names == {flag.name for flag in signatures._flags_of(resnet, "")} - {"resnet_depth"}
    with pytest.raises(TypeError):
        variant.create_backbone(resnet_depth=18)


def test_names_of_the_package_stay_functions_when_the_files_of_that_name_are_imported():
    for name in PLUG_INS:
        importlib.import_module(f"deepem.models.backbones.{name}")
    for name in backbones.__all__:
        assert callable(getattr(backbones, name)), name
    assert not callable(sys.modules["deepem.models.backbones.resnet50"])
    with pytest.raises(AttributeError, match="resnet99"):
        _ = backbones.resnet99


def test_the_package_does_not_import_torch():
    code = "import sys, deepem.models.backbones as b; sys.exit('torch' in sys.modules or not b.__all__)"
    assert subprocess.run([sys.executable, "-c", code], cwd=FOLDER.parents[2], check=False).returncode == 0
