"""The parts of the backbones against slow, obvious references."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deepem.models.backbones import FPN, Hiera, Reroll, SimpleFeaturePyramid, Unroll, ViTDet, inflate
from deepem.models.backbones.parts.attention import Attention, from_windows, to_windows
from deepem.models.backbones.parts.base import DropPath, resize_positions
from deepem.models.backbones.parts.pretrained import rename
from deepem.models.backbones.parts.unroll import pool_first
from deepem.models.backbones.resnet import create_backbone as resnet

SIDES = st.tuples(*[st.integers(1, 3)] * 3)


def coordinates(size) -> torch.Tensor:
    """Tokens in spatial order that hold their own place: (1, tokens, 3)."""
    return torch.tensor(list(product(*map(range, size))), dtype=torch.float32)[None]


@settings(deadline=None, max_examples=40)
@given(units=SIDES, stride=SIDES, steps=st.integers(0, 2), pools=st.integers(0, 2))
def test_rerolled_tokens_are_in_spatial_order(units, stride, steps, pools):
    """Also after poolings: each token is then the maximum, so the last corner, of its window."""
    pools = min(pools, steps)
    size = tuple(u * s**steps for u, s in zip(units, stride, strict=True))
    schedule, ends = [stride] * steps, list(range(steps + 1))
    tokens = Unroll(size, (1, 1, 1), schedule)(coordinates(size))
    for _ in range(pools):
        tokens = pool_first(tokens, prod(stride))
    got = Reroll((1, 1, 1), (1, 1, 1), schedule, ends, pools)(tokens, pools, size=size)
    window = np.array(stride) ** pools
    small = tuple(n // w for n, w in zip(size, window, strict=True))
    want = coordinates(small).reshape(1, *small, 3) * torch.tensor(window) + torch.tensor(window - 1)
    assert torch.equal(got, want)


def test_masked_units_come_back_one_by_one():
    tokens = Unroll((4, 4, 2), (1, 1, 1), [(2, 2, 1)])(coordinates((4, 4, 2)))
    mask = torch.ones(1, 8, dtype=torch.bool)
    got = Reroll((4, 4, 2), (1, 1, 1), [(2, 2, 1)], [0, 1], 1)(tokens, 0, mask)
    assert got.shape == (1, 8, 2, 2, 1, 3)
    assert got[0, 5].reshape(-1, 3).tolist() == [[2, 0, 1], [2, 1, 1], [3, 0, 1], [3, 1, 1]]


def slow_attention(net: Attention, x: torch.Tensor) -> torch.Tensor:
    """Scores one by one."""
    _, *grid, width = x.shape
    places = list(product(*map(range, grid)))
    heads, channels = net.heads, width // net.heads
    qkv = net.qkv(x.reshape(1, -1, width)).reshape(-1, 3, heads, channels)
    out = torch.zeros(len(places), heads, channels)
    for head in range(heads):
        q, k, v = qkv[:, 0, head], qkv[:, 1, head], qkv[:, 2, head]
        scores = q @ k.T / channels**0.5
        for i, a in enumerate(places):
            for j, b in enumerate(places):
                for axis, name in enumerate("dhw"):
                    table = net.get_parameter(f"rel_pos_{name}")
                    scores[i, j] += q[i] @ table[a[axis] - b[axis] + grid[axis] - 1]
        out[:, head] = scores.softmax(-1) @ v
    return net.proj(out.reshape(1, *grid, width))


def test_attention_with_relative_positions_is_that_of_explicit_scores():
    grid = (2, 3, 4)
    net = Attention(8, 2, grid).requires_grad_(False)
    for name in "dhw":
        net.get_parameter(f"rel_pos_{name}").normal_()
    x = torch.randn(1, *grid, 8)
    assert torch.allclose(net(x), slow_attention(net, x), atol=1e-5)


def test_relative_positions_are_interpolated_to_another_size():
    """A table that is linear in the difference stays so: its ends are those of the longer one."""
    net = Attention(4, 1, (1, 1, 3))
    with torch.no_grad():
        net.rel_pos_w.copy_(torch.linspace(-1, 1, 5)[:, None].expand(5, 4))
    assert net(torch.rand(1, 1, 1, 7, 4)).shape == (1, 1, 1, 7, 4)


@given(grid=SIDES, window=SIDES)
def test_windows_and_back(grid, window):
    x = torch.arange(2.0 * prod(grid)).reshape(2, *grid, 1) + 1
    windows, padded = to_windows(x, window)
    assert windows.shape[1:4] == window
    assert torch.equal(from_windows(windows, padded, grid), x)
    assert float(windows.sum()) == float(x.sum())


def test_windows_hold_neighbours():
    x = coordinates((4, 4, 6)).reshape(1, 4, 4, 6, 3)
    windows, _ = to_windows(x, (2, 4, 3))
    spans = (windows.flatten(1, 3).amax(1) - windows.flatten(1, 3).amin(1)).tolist()
    assert spans == [[1, 3, 2]] * 4


def test_drop_path_keeps_the_mean_and_does_nothing_in_evaluation():
    x = torch.ones(4000, 2, 3)
    drop = DropPath(0.25)
    assert drop.eval()(x) is x
    torch.manual_seed(0)
    y = drop.train()(x)
    assert y.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(y, y[:, :1, :1].expand_as(y))  # whole samples
    assert float(y.mean()) == pytest.approx(1, abs=0.03)
    torch.manual_seed(0)
    assert torch.equal(drop(x), y)
    with pytest.raises(ValueError, match="drop path rate: got 1"):
        DropPath(1.0)


def test_drop_path_rises_from_block_to_block():
    for net in (Hiera(drop_path_rate=0.3, embed_dim=8), ViTDet(drop_path_rate=0.3, embed_dim=12)):
        rates = [block.drop_path.rate for block in net.blocks]
        assert rates[0] == 0
        assert rates[-1] == pytest.approx(0.3)
        assert rates == sorted(rates)


def test_positions_of_another_size_follow_the_grid():
    ramp = coordinates((4, 6, 8))
    assert resize_positions(ramp, (4, 6, 8), (4, 6, 8)) is ramp
    got = resize_positions(ramp, (4, 6, 8), (8, 12, 16)).reshape(8, 12, 16, 3)
    inner = got[2:-2, 4:-4, 4:-4]
    want = (coordinates((8, 12, 16)).reshape(8, 12, 16, 3) - 0.5) / 2
    assert torch.allclose(inner, want[2:-2, 4:-4, 4:-4], atol=0.05)  # bicubic overshoots a little beside the border
    assert torch.allclose(resize_positions(torch.ones(1, 24, 2), (2, 3, 4), (3, 5, 2)), torch.ones(1, 30, 2))


@pytest.mark.parametrize("kind", ["whole", "z_yx", "z_y_x"])
def test_hiera_positions_are_sums_of_tables(kind):
    net = Hiera((32, 64, 96), embed_dim=8, sep_pos_embed=kind)
    tokens = (8, 16, 24)
    got = net.get_pos_embed().reshape(*tokens, 8)
    assert net.get_pos_embed((16, 16, 8)).shape == (1, 2048, 8)
    z, y, x = 3, 5, 7
    want = {
        "whole": lambda: net.pos_embed[0, (z * 16 + y) * 24 + x],
        "z_yx": lambda: net.pos_embed_temporal[0, z] + net.pos_embed_spatial[0, y * 24 + x],
        "z_y_x": lambda: net.pos_embed_z[0, z] + net.pos_embed_y[0, y] + net.pos_embed_x[0, x],
    }[kind]()
    assert torch.equal(got[z, y, x], want)


def test_what_is_masked_is_not_seen_by_overlapping_patches():
    net = Hiera(32, embed_dim=8, stages=(1, 1), q_pool=1, mask_unit_attn=(True, False)).eval()
    mask = torch.ones(1, 64, dtype=torch.bool)
    mask[0, 21] = False  # unit (1, 1, 1) of 4 x 4 x 4, 8 voxels long
    x = torch.rand(1, 1, 32, 32, 32)
    other = x.clone()
    other[..., 8:16, 8:16, 8:16] += 1
    with torch.no_grad():
        results = [net(image, mask=mask, return_intermediates=True) for image in (x, other)]
        assert torch.equal(results[0][0], results[1][0])
        other[..., 16, 8, 8] += 1  # beside it
        assert not torch.equal(results[0][0], net(other, mask=mask, return_intermediates=True)[0])
    mask = mask.repeat(2, 1)
    mask[0, 0] = False
    with pytest.raises(ValueError, match=r"as many units of each sample, not \[62, 63\]"):
        net(x.repeat(2, 1, 1, 1, 1), mask=mask, return_intermediates=True)


def test_mask_units_do_not_see_each_other_before_the_global_stages():
    net = Hiera(32, embed_dim=8, stages=(1, 1), q_pool=1, mask_unit_attn=(True, True)).eval()
    x = torch.rand(1, 1, 32, 32, 32)
    other = x.clone()
    other[..., 20, 20, 20] += 1
    with torch.no_grad():
        change = (net(x)["p3"] - net(other)["p3"]).abs().amax((0, 1))
    assert change[2, 2, 2] > 0
    change[2, 2, 2] = 0
    assert change.max() == 0


def test_fpn_brings_the_coarse_map_down_by_nearest_neighbour():
    net = FPN([1, 1], 1)
    with torch.no_grad():
        for inner, layer in zip(net.inner_blocks, net.layer_blocks, strict=True):
            inner[0].weight.fill_(1)
            layer[0].weight.zero_()[..., 1, 1, 1] = 1
        fine, coarse = torch.rand(1, 1, 4, 6, 8), torch.rand(1, 1, 2, 3, 4)
        maps = net({"p2": fine, "p3": coarse})
    want = fine + coarse.repeat_interleave(2, 2).repeat_interleave(2, 3).repeat_interleave(2, 4)
    assert torch.allclose(maps["p2"], want)
    assert torch.equal(maps["p3"], coarse)


def test_inflated_resnet_gives_each_of_equal_sections_what_the_flat_one_gives():
    """A 2-D network, here the 3-D one with flat kernels, inflated to the centre tap."""
    net = resnet(resnet_depth=18, resnet_width=4, stem_stride=(1, 2, 2), pool_stride=(1, 2, 2), stage_zstride=(1, 1, 1))
    flat = {key: t[:, :, t.shape[2] // 2] if t.dim() == 5 else t for key, t in net.state_dict().items()}
    fitted = inflate(flat, net)
    assert list(fitted) == list(net.state_dict())
    net.load_state_dict(fitted)
    net.eval()
    x = torch.rand(1, 1, 1, 64, 64)
    with torch.no_grad():
        one, five = net(x), net(x.repeat(1, 1, 5, 1, 1))
    for name in one:
        assert torch.allclose(five[name], one[name].expand_as(five[name]), atol=1e-5)


def test_inflate_leaves_its_argument_and_what_does_not_fit():
    net = resnet(resnet_depth=18, resnet_width=4)
    kernel = torch.rand(4, 3, 7, 7)
    state = {"conv1.weight": kernel, "fc.weight": torch.rand(10, 4), "bn1.bias": torch.rand(5)}
    before = {key: t.clone() for key, t in state.items()}
    fitted = inflate(state, net)
    assert list(fitted) == ["conv1.weight"]
    assert torch.equal(fitted["conv1.weight"][:, :, 3], kernel.sum(1, keepdim=True))
    assert fitted["conv1.weight"].count_nonzero() == 4 * 49
    assert all(torch.equal(state[key], before[key]) for key in state)
    two = inflate(state, resnet(resnet_depth=18, resnet_width=4, in_channels=2))["conv1.weight"]
    assert torch.allclose(two.sum(1, keepdim=True), fitted["conv1.weight"])  # a grey image gives the same


def test_inflated_positions_are_those_of_every_section():
    net = ViTDet((16, 64, 64), (8, 8, 8), embed_dim=12, depth=1)
    table = torch.rand(1, 1 + 36, 12)  # a class token, then a square of 6
    got = inflate({"pos_embed": table}, net)["embeddings.position_embeddings"].reshape(2, 8, 8, 12)
    assert torch.equal(got[0], got[1])
    assert torch.allclose(got[0].reshape(1, 64, 12), resize_positions(table[:, 1:], (1, 6, 6), (1, 8, 8)))
    same = inflate({"pos_embed": torch.rand(1, 128, 12)}, net)
    assert same["embeddings.position_embeddings"].shape == (1, 128, 12)
    given = inflate({"pos_embed": torch.rand(1, 24, 12)}, net, grid=(2, 3, 4))
    assert given["embeddings.position_embeddings"].shape == (1, 128, 12)
    assert inflate({"pos_embed": torch.rand(1, 23, 12)}, net) == {}


def test_inflate_finds_a_backbone_within_a_network():
    net = nn.ModuleDict({"backbone": SimpleFeaturePyramid(ViTDet(32, 8, embed_dim=12, depth=1), 6)})
    key = "backbone.net.embeddings.position_embeddings"
    assert inflate({key: torch.rand(1, 9, 12)}, net)[key].shape == (1, 64, 12)


def test_vision_transformers_load_under_the_names_of_detectron2():
    net = ViTDet(32, 8, embed_dim=12, depth=2)
    back = {
        key.replace("encoder.layer", "blocks")
        .replace("attention", "attn")
        .replace("embeddings.projection", "patch_embed.proj")
        .replace("embeddings.position_embeddings", "pos_embed"): torch.rand_like(t)
        for key, t in net.state_dict().items()
    }
    assert "blocks.1.attn.qkv.weight" in back
    assert {rename(key) for key in back} == set(net.state_dict())
    before = list(back)
    net.load_state_dict(back)
    assert list(back) == before
    assert torch.equal(net.blocks[1].attention.qkv.weight, back["blocks.1.attn.qkv.weight"])
