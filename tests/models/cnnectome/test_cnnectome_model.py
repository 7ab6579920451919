"""The U-Net as a model module: its flags, decoders, seams, and checkpoints of before and of DaCapo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepem.cli import signatures
from deepem.models import cnnectome_unet
from deepem.models.cnnectome import CNNectomeUNet, CNNectomeUNetConfig, dacapo_keys
from deepem.models.cnnectome_unet import create_model, evaluation_size, formerly, output_size
from deepem.utils.errors import InputError

HEADS = {"affinity": (3, 4, 8, 8), "mitochondria": (1, 4, 8, 8)}
SPECS = {"in_spec": {"input": (1, 4, 8, 8)}, "out_spec": HEADS}
SMALL = {"num_fmaps": 2, "fmap_inc_factor": 2, "downsample_factors": [(1, 2, 2), (2, 2, 2)]}


def made(**flags: object) -> torch.nn.Module:
    return create_model(**SPECS, **{**SMALL, **flags})


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"padding": "same"},
        {"equivariant": True, "use_attention": True},
        {"kernel_size_down": [[(3, 3, 3)], [(1, 3, 3), (3,)]], "kernel_size_up": [[(3, 1, 1)], [(1,)]]},
        {"upsample_factors": [(2, 1, 1)], "padding": "same"},
        {"upsample_factors": [(1, 2, 2)], "superres_padding": "valid", "decoder_per_task": True},
        {"downsample_factors": None, "zfactor": [1, 2], "xyfactor": [2, 2], "pooling": "avg", "activation": "ELU"},
        {"io_kernel": (1, 5, 5), "fmaps_out": 5, "batch_norm": True, "upsample_channel_contraction": [True, False]},
    ],
)
def test_a_model_gives_the_size_it_promises(flags):
    model = made(**flags)
    fov = (32, 50, 54) if "kernel_size_up" in flags else (32, 48, 52)
    promised = {True: output_size(fov, **{**SMALL, **flags}), False: evaluation_size(fov, **{**SMALL, **flags})}
    for training, size in promised.items():
        with torch.no_grad():
            outputs = model.train(training)(torch.zeros(1, 1, *fov))
        assert {name: tuple(y.shape) for name, y in outputs.items()} == {
            name: (1, shape[0], *size) for name, shape in HEADS.items()
        }


def test_crops_are_left_out_of_training_by_default():
    fov = (32, 68, 68)
    flags = {**SMALL, "downsample_factors": [(1, 2, 2)] * 3}
    assert output_size((48, 108, 108), **flags) == (20, 20, 20)
    assert evaluation_size((48, 108, 108), **flags) == (20, 16, 16)
    assert output_size((48, 108, 108), **flags, equivariant=True) == (20, 16, 16)
    with pytest.raises(InputError, match="y = 100, 108 or 116 instead of 68"):
        output_size(fov, **flags)


def test_a_patch_that_only_training_takes_is_refused_at_the_start():
    flags = {"downsample_factors": [(1, 2, 2)] * 3}
    model, x = made(**flags), torch.zeros(1, 1, 48, 92, 92)
    assert model(x)["affinity"].shape[2:] == (20, 4, 4)
    with pytest.raises(InputError, match=r"network input: got 48,92,92, .* y = 100, 108 or 116"):
        model.eval()(x)
    with pytest.raises(InputError, match=r"fov .*: got 48,92,92, .* y = 100, 108 or 116"):
        output_size((48, 92, 92), **flags)


def test_superres_of_the_command_line_is_padded():
    flags = {**SMALL, "padding": "same", "upsample_factors": [(2, 1, 1)]}
    assert output_size((8, 16, 16), **flags) == (16, 16, 16)


def test_sections_on_their_own_in_both_ways_of_writing():
    fov = (1, 44, 44)
    for flags in (
        {"downsample_factors": [(2, 2)] * 2},
        {
            "downsample_factors": [(1, 2, 2)] * 2,
            "kernel_size_down": [[(1, 3, 3)] * 2] * 2,
            "kernel_size_up": [[(3, 3)] * 2] * 2,
        },
    ):
        model = made(**flags)
        assert model(torch.zeros(2, 1, *fov))["affinity"].shape == (2, 3, *output_size(fov, **flags))
        assert output_size(fov, **flags) == (1, 4, 4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"zfactor": [1, 1]}, "downsample_factors: got zfactor or xyfactor besides"),
        ({"downsample_factors": None, "zfactor": [1, 1]}, "zfactor: got 1 1, wants one per xyfactor, 3 in all"),
        ({"kernel_size_down": [[(3, 3, 3)]]}, "kernel_size_down: got 1 lists .* wants 2 or 3 lists"),
        ({"kernel_size_up": [[(3, 3, 3, 3)], [(3, 0, 3)]]}, "kernel_size_up: .* above 0"),
        ({"upsample_factors": [(2, 1, 1, 1)]}, "upsample_factors: .*axes"),
        ({"upsample_channel_contraction": [True]}, "upsample_channel_contraction"),
        ({"activation": "Swish"}, "activation: got Swish"),
    ],
)
def test_flags_that_cannot_be_are_refused_by_their_names(flags, message):
    with pytest.raises(InputError, match=message):
        made(**flags)


def test_a_decoder_per_task_is_its_own():
    model = made(decoder_per_task=True)
    model(torch.randn(1, 1, 32, 44, 44))["mitochondria"].sum().backward()
    used = {key for key, p in model.named_parameters() if p.grad is not None}
    assert all(key.startswith(("core.l_conv", "core.r_up.1", "core.r_conv.1", "out.mitochondria")) for key in used)
    assert {key.split(".")[0] for key in used} == {"core", "out"}
    together = made()
    together(torch.randn(1, 1, 32, 44, 44))["mitochondria"].sum().backward()
    assert all(p.grad is not None for key, p in together.named_parameters() if key.startswith("core"))


def test_patches_of_a_valid_network_tile_without_seams():
    model = made(constant_upsample=False).double().eval()
    fov = (32, 48, 52)
    step = evaluation_size(fov, **SMALL)
    volume = torch.rand(1, 1, *(n + s for n, s in zip(fov, step, strict=True)), dtype=torch.float64)
    with torch.no_grad():
        whole = model(volume)["affinity"]
        for corner in np.ndindex(2, 2, 2):
            begin = [c * s for c, s in zip(corner, step, strict=True)]
            patch = volume[(..., *(slice(b, b + n) for b, n in zip(begin, fov, strict=True)))]
            box = (..., *(slice(b, b + s) for b, s in zip(begin, step, strict=True)))
            torch.testing.assert_close(model(patch)["affinity"], whole[box])


CLIP = {
    **SMALL,
    "kernel_size_down": [[(3, 3, 3, 3), (3, 3, 3)], [(2, 1, 3, 3)], [(3, 3, 3)]],
    "kernel_size_up": [[(3, 3, 3)], [(3, 3, 3)]],
}


@pytest.mark.parametrize("io_kernel", [None, (1, 3, 3)])
def test_channels_are_seen_as_frames(io_kernel):
    """8 channels: 2 of 4 frames each, channel by channel."""
    model = create_model(in_spec={"input": (8, 4, 8, 8)}, out_spec=HEADS, **CLIP, length=4, io_kernel=io_kernel)
    x = torch.randn(2, 8, 20, 36, 36)
    outputs = model(x)
    assert outputs["affinity"].shape == (2, 3, *output_size((20, 36, 36), **CLIP, length=4))
    if io_kernel is None:
        frames = torch.stack([x[:, :4], x[:, 4:]], 1)
        torch.testing.assert_close(model.out(model.core(frames))["affinity"], outputs["affinity"])


@pytest.mark.parametrize(
    ("channels", "length", "flags", "wants"),
    [
        (8, 3, CLIP, "a divisor of the 8 channels"),
        (8, 8, CLIP, "wants 4, of which"),
        (8, 1, CLIP, "wants 4, of which"),
        (8, 2, SMALL, "wants 1, of which"),
        (8, 2, {**SMALL, "padding": "same"}, "wants 1, or padding valid"),
    ],
)
def test_lengths_that_leave_no_single_frame_are_refused(channels, length, flags, wants):
    with pytest.raises(InputError, match=f"length: got {length}, .*{wants}|length: got {length}, {wants}"):
        create_model(in_spec={"input": (channels, 4, 8, 8)}, out_spec=HEADS, **flags, length=length)


def test_flags_are_shown_with_help():
    shown = {flag.name: flag for flag in signatures.flags("model", cnnectome_unet)}
    assert all(flag.help for flag in shown.values())
    assert {
        "kernel_size_down",
        "kernel_size_up",
        "upsample_factors",
        "decoder_per_task",
        "equivariant",
        "length",
        "zfactor",
    } <= shown.keys()
    assert shown["equivariant"].default == "eval"


BEFORE = {
    "plain": ({}, (2, 6, 6), 0.4457949, 0.4301983),
    "other": (
        {"use_attention": True, "batch_norm": True, "constant_upsample": False},
        (2, 6, 6),
        0.7316945,
        0.7284266,
    ),
    "same": ({"padding": "same"}, (26, 52, 52), 0.5090430, 0.5192367),
}
"""Recorded from the first version, whose checkpoints do not name the flags that came later."""


@pytest.mark.parametrize("case", BEFORE)
def test_checkpoints_of_before_give_what_they_gave(cnnectome, case):
    flags, size, *means = BEFORE[case]
    flags = {"num_fmaps": 2, "fmap_inc_factor": 2, "zfactor": [1, 2], "xyfactor": [2, 3], **flags}
    model = create_model(**SPECS, **flags, **formerly).eval()
    shapes = {key: tuple(t.shape) for key, t in model.state_dict().items()}
    assert next(iter(shapes)) == "in.conv.conv.weight"
    assert shapes["in.conv.conv.weight"] == (2, 1, 1, 5, 5)
    assert shapes["core.l_conv.0.conv_pass.0.weight"] == (2, 2, 3, 3, 3)
    assert shapes["out.affinity.conv.weight"] == (3, 2, 1, 5, 5)
    x = torch.tensor(np.random.RandomState(1234).standard_normal((1, 1, 26, 60, 60)), dtype=torch.float32)
    with torch.no_grad():
        cnnectome.fill(model)
        outputs = model(x)
    assert outputs["affinity"].shape[2:] == output_size((26, 60, 60), **flags, **formerly) == size
    assert [float(y.abs().mean()) for y in outputs.values()] == pytest.approx(means, rel=1e-4)


class DaCapo(torch.nn.Module):
    """How DaCapo holds a network and its head: twice."""

    def __init__(self, config: CNNectomeUNetConfig) -> None:
        super().__init__()
        self.architecture = CNNectomeUNet(config)
        self.prediction_head = torch.nn.Conv3d(config.fmaps_out, 3, 1)
        self.chain = torch.nn.Sequential(self.architecture, self.prediction_head)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.chain(x)


@pytest.mark.parametrize("finer", [None, [(2, 1, 1)]])
def test_weights_of_dacapo_are_ours_under_other_names(finer):
    settings = {**SMALL, "fmaps_out": 4, "use_attention": True, "batch_norm": True, "upsample_factors": finer}
    theirs = DaCapo(CNNectomeUNetConfig((32, 52, 52), fmaps_in=1, **settings)).eval()
    ours = create_model(
        in_spec=SPECS["in_spec"], out_spec={"affinity": (3, 4, 8, 8)}, **settings, superres_padding="valid"
    ).eval()
    state = theirs.state_dict()
    mapped = dacapo_keys(state, head="affinity")
    assert list(mapped) == list(ours.state_dict())
    ours.load_state_dict(mapped)
    x = torch.randn(1, 1, 32, 52, 52)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)["affinity"], theirs(x))
    chained = {key: value for key, value in state.items() if key.startswith("chain.")}
    assert list(dacapo_keys(chained, head="affinity")) == list(mapped)
    core = [key for key in mapped if key.startswith("core.")]
    assert list(dacapo_keys(state)) == core
    assert list(dacapo_keys(theirs.architecture.state_dict())) == core
    assert list(dacapo_keys(theirs.architecture.unet.state_dict())) == core
    assert dacapo_keys(mapped) == mapped, "what is ours keeps its name"
