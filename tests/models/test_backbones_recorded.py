"""The backbones give what independent implementations gave (shared/parity/detection)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from deepem.models.backbones import FPN, Hiera, LastLevelMaxPool, ViTDet, inflate


class Case:
    """One recorded file: `w/<key>` weights, `x*` inputs, `y*` and others outputs."""

    def __init__(self, path: Path) -> None:
        self.arrays = np.load(path)

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return {key[2:]: self[key] for key in self.arrays if key.startswith("w/")}


@pytest.fixture
def recorded(shared):
    return lambda name: Case(shared / "parity" / "detection" / f"{name}.npz")


def off(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    assert got.shape == want.shape
    return float((got - want).abs().max() / want.abs().max())


SMALL_HIERA = {
    "input_size": 32,
    "in_chans": 2,
    "embed_dim": 8,
    "num_classes": 3,
    "stages": (1, 2, 1),
    "mask_unit_size": (4, 4, 4),
    "mask_unit_attn": (True, True, False),
}


@pytest.mark.parametrize("training", [False, True])
def test_hiera_in_3d_by_its_authors(recorded, training):
    case = recorded("hiera3d")
    net = Hiera(**SMALL_HIERA, q_pool=2, sep_pos_embed=False)
    assert list(net.state_dict()) == list(case.weights)
    net.load_state_dict(case.weights)
    with torch.no_grad():
        y, maps = net.train(training)(case["x"], return_intermediates=True)
    assert off(y.softmax(-1) if training else y, case["y"]) < 1e-5
    for i, got in enumerate(maps):
        assert off(got, case[f"mid{i}"]) < 1e-5


def test_hiera_backbone_gives_the_authors_maps_with_channels_first(recorded):
    case = recorded("hiera3d")
    net = Hiera(**{**SMALL_HIERA, "num_classes": 0}, q_pool=2)
    net.load_state_dict({key: value for key, value in case.weights.items() if not key.startswith("head.")})
    with torch.no_grad():
        maps = net(case["x"])
    assert list(maps) == ["p2", "p3", "p4"]
    assert off(maps["p2"], case["mid0"].movedim(-1, 1)) < 1e-5
    assert off(maps["p3"], case["mid1"].movedim(-1, 1)) < 1e-5
    assert off(maps["p4"], net.norm(case["mid2"]).detach().movedim(-1, 1)) < 1e-5


def test_hiera_with_masked_units_and_separate_positions_by_its_authors(recorded):
    case = recorded("hiera3d_sep_masked")
    net = Hiera(**SMALL_HIERA, q_pool=1, sep_pos_embed=True)
    net.load_state_dict(case.weights)
    with torch.no_grad():
        y, maps = net(case["x"], mask=case["mask"], return_intermediates=True)
    assert off(y, case["y"]) < 1e-5
    for i, got in enumerate(maps):
        assert off(got, case[f"mid{i}"]) < 1e-5


FLAT_VIT = {
    "image_size": (1, 64, 64),
    "patch_size": (1, 8, 8),
    "embed_dim": 32,
    "depth": 4,
    "num_heads": 2,
    "mlp_ratio": 2,
    "window_size": (1, 3, 3),
    "window_block_indices": (0, 1),
    "residual_block_indices": (3,),
    "pretrain_image_size": (1, 48, 48),
}


def flat_vit(weights: dict[str, torch.Tensor], **options: object) -> ViTDet:
    net = ViTDet(**{**FLAT_VIT, **options})
    left = net.load_state_dict(inflate(weights, net), strict=False)
    assert {key.rpartition(".")[2] for key in left.missing_keys} == {"rel_pos_d"}
    return net


def test_vitdet_at_one_section(recorded):
    case = recorded("vitdet2d")
    with torch.no_grad():
        states = flat_vit(case.weights).hidden_states(case["x"][:, :, None])
    for i, got in enumerate(states):
        assert off(got[:, :, 0], case[f"h{i}"]) < 1e-5, i
    assert off(states[-1][:, :, 0], case["y"]) < 1e-5


def test_vitdet_of_several_sections_inflated_gives_each_section_what_it_gives_alone(recorded):
    """Where nothing attends across sections: windows of one section, and no block that attends everywhere."""
    case = recorded("vitdet2d")
    flat = {
        key: value for key, value in case.weights.items() if not key.startswith(("encoder.layer.2", "encoder.layer.3"))
    }
    options = {"depth": 2, "residual_block_indices": ()}
    thin = flat_vit(flat, **options)
    thick = flat_vit(flat, **options, image_size=(3, 64, 64), pretrain_image_size=(3, 48, 48))
    x = torch.randn(1, 1, 3, 64, 64)
    with torch.no_grad():
        assert off(thick(x)[:, :, 1:2], thin(x[:, :, 1:2])) < 1e-5


def test_fpn_at_one_section(recorded):
    case = recorded("fpn2d")
    net = FPN([8, 16, 32], 8, LastLevelMaxPool())
    net.load_state_dict(inflate(case.weights, net))
    with torch.no_grad():
        maps = net({name: case[f"x_{name}"][:, :, None] for name in ("p2", "p3", "p4")})
    assert list(maps) == ["p2", "p3", "p4", "pool"]
    for name, got in maps.items():
        assert off(got[:, :, 0], case[f"y_{name}"]) < 1e-5
