"""What the public family lacks: it adds nothing when off, and does what it says when on."""

from __future__ import annotations

import pytest
import torch

from deepem.cli import plugins, signatures
from deepem.models import dtu2, dynamic_rsunet, rsunet, rsunet_2d3d, rsunet_act, runet, updown, vrunet
from deepem.utils.errors import InputError

HEADS = {"affinity": (3, 4, 8, 8), "mitochondria": (1, 4, 8, 8)}
SPECS = {"in_spec": {"input": (1, 4, 8, 8)}, "out_spec": HEADS}
SMALL = {**SPECS, "width": [2, 3, 4]}
OPTIONS = {"squeeze_excitation": "se.", "attention_gates": ".gate."}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("module", [rsunet, rsunet_act, updown])
def test_options_add_parameters_only_when_on(module, option):
    off, on = (list(module.create_model(**SMALL, **{option: flag}).state_dict()) for flag in (False, True))
    added = [key for key in on if key not in off]
    assert [key for key in on if key in off] == off == list(module.create_model(**SMALL).state_dict())
    assert added
    assert all(OPTIONS[option] in key for key in added)


@pytest.mark.parametrize("option", OPTIONS)
def test_options_weigh_feature_maps_and_learn(option):
    model = rsunet_act.create_model(**SMALL, act="ELU", **{option: True})
    x = torch.rand(2, 1, 4, 8, 8)
    model(x)["affinity"].square().sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if OPTIONS[option] in name)
    before = model(x)["affinity"]
    with torch.no_grad():
        for name, p in model.named_parameters():
            if OPTIONS[option] in name:
                p.add_(1)
    assert not torch.allclose(before, model(x)["affinity"])


@pytest.mark.parametrize("module", [rsunet, rsunet_act, rsunet_2d3d, runet, dynamic_rsunet])
def test_recomputing_changes_nothing_but_memory(module):
    """Outputs, gradients, running statistics and their count: as without."""
    plain = module.create_model(**SMALL)
    saving = module.create_model(**SMALL, checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.rand(2, 1, 4, 8, 8)
    saved = []
    for model in (plain, saving):
        kept = 0

        def count(t):
            nonlocal kept
            kept += t.numel()
            return t

        with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
            loss = sum(y.square().sum() for y in model(x).values())
        loss.backward()
        saved.append(kept)
    assert saved[1] < saved[0] / 2
    for (name, a), b in zip(plain.state_dict().items(), saving.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-5)
    assert all(torch.equal(plain.eval()(x)[head], saving.eval()(x)[head]) for head in HEADS)


def test_deep_supervision_predicts_every_head_from_coarser_levels_in_training_only():
    model = rsunet.create_model(**SMALL, deep_supervision=[0.5, 0.25])
    x = torch.rand(1, 1, 4, 8, 8)
    outputs = model(x)
    extra = {f"{head}@level{level}": weight for level, weight in ((1, 0.5), (2, 0.25)) for head in HEADS}
    assert model.auxiliary == extra
    assert list(outputs) == [*HEADS, *extra]
    assert all(outputs[name].shape == outputs[name.partition("@")[0]].shape for name in outputs)
    assert list(model.eval()(x)) == list(HEADS)
    plain = list(rsunet.create_model(**SMALL).state_dict())
    assert [key for key in model.state_dict() if not key.startswith("aux.")] == plain


def test_deep_supervision_scales_and_crops_like_its_heads():
    model = updown.create_model(**{**SMALL, "width": [2, 3]}, deep_supervision=[1.0])
    assert {y.shape[-3:] for y in model(torch.rand(1, 1, 4, 8, 8)).values()} == {(4, 8, 8)}
    model = rsunet_act.create_model(**SMALL, cropsz=(0.5, 0.5, 0.25), deep_supervision=[1.0])
    assert {y.shape[-3:] for y in model(torch.rand(1, 1, 4, 8, 8)).values()} == {(2, 4, 2)}


def test_deep_supervision_needs_a_level_for_each_weight():
    with pytest.raises(InputError, match="deep_supervision: got 3 weights, wants at most 2"):
        rsunet.create_model(**SMALL, deep_supervision=[1.0, 1.0, 1.0])


def test_unrolled_model_reads_every_pass_in_training_and_gives_the_last():
    model = dynamic_rsunet.create_model(**SMALL, unroll=3)
    x = torch.rand(1, 1, 4, 8, 8)
    outputs = model(x)
    assert model.auxiliary == {f"{head}@pass{k}": 1.0 for k in (1, 2) for head in HEADS}
    assert list(outputs)[:2] == list(HEADS)
    assert set(outputs) == set(HEADS) | set(model.auxiliary)
    model.eval()
    y = model._modules["in"](x)
    for k in (1, 2, 3):
        y = model.core(y, unroll=k)
    assert torch.equal(model(x)["affinity"], model.out(y)["affinity"])
    assert list(model(x)) == list(HEADS)
    sum(y.sum() for y in outputs.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(InputError, match="unroll: got 0"):
        dynamic_rsunet.create_model(**SMALL, unroll=0)


@pytest.mark.parametrize(
    ("module", "fov", "out", "flags"),
    [
        (vrunet, (48, 148, 148), (20, 60, 60), {"width": [1, 1, 1, 1]}),
        (vrunet, (29, 60, 92), (9, 20, 52), {"width": [1, 2, 2], "scale_factor": (1, 2, 2)}),
        (dtu2, (22, 212, 239), (2, 4, 31), {"width": [2, 3, 4, 5]}),
    ],
)
def test_valid_models_give_the_size_they_promise_and_crop_relative_to_the_patch(module, fov, out, flags):
    assert module.output_size(fov, **flags) == out
    x = torch.rand(1, 1, *fov)
    with torch.no_grad():
        full = module.create_model(**SPECS, **flags).eval()
        assert full(x)["affinity"].shape[-3:] == out
        kept = (1, out[1] - 1, 3)
        fractions = tuple(k / f for k, f in zip(kept, fov, strict=True))
        assert module.create_model(**SPECS, **flags, cropsz=fractions).eval()(x)["affinity"].shape[-3:] == kept


def test_the_default_patch_is_refused_by_valid_networks_with_sizes_that_work():
    for module in (vrunet, dtu2):
        with pytest.raises(InputError) as error:
            module.output_size((20, 256, 256))
        for part in error.value.wants.partition(": ")[2].split("; "):
            axis, sizes = part.split(" instead")[0].split(" = ")
            for size in sizes.split(" or "):
                fov = {**dict(zip("zyx", (29, 92, 92) if module is vrunet else (22, 239, 239), strict=True))}
                fov[axis] = int(size)
                assert module.output_size(tuple(fov.values()))


def test_every_model_module_takes_what_public_scripts_hand_to_all():
    """And its flags can be read, typed, with help."""
    for name in plugins.siblings("model"):
        module = plugins.load("model", name)
        flags = signatures.flags("model", module)
        assert all(flag.help for flag in flags), name
        if name not in ("cnnectome_unet", "fpn", "mask_rcnn"):
            module.create_model(**SMALL, cropsz=None, depth=4, group=0, act="ReLU")
            with pytest.raises(TypeError, match="no_such"):
                module.create_model(**SMALL, no_such=1)


def test_dtu2_takes_kernels_and_factors_per_level():
    flags = {"kernel_sizes": [(1, 3, 3), (3, 3, 3), (3, 3, 3)], "downsample_factors": [(1, 2, 2), (2, 2, 3)]}
    fov = dtu2.output_size((20, 62, 64), width=[2, 3, 4], **flags)
    model = dtu2.create_model(**SMALL, **flags)
    assert model(torch.zeros(1, 1, 20, 62, 64))["affinity"].shape[-3:] == fov
    assert list(dtu2.create_model(**SMALL).state_dict()) == list(model.state_dict())
    assert {"kernel_sizes", "downsample_factors"} <= {flag.name for flag in signatures.flags("model", dtu2)}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"kernel_sizes": [(1, 3, 3)]}, "width: got 3 levels, wants 1 to 1"),
        ({"downsample_factors": [(1, 3, 3)]}, "width: got 3 levels, wants 1 to 2"),
        ({"downsample_factors": [(1, 0, 3)] * 2}, "downsample_factors: .* 1 or more"),
    ],
)
def test_dtu2_refuses_kernels_and_factors_that_cannot_be(flags, message):
    for call in (
        lambda: dtu2.create_model(**SMALL, **flags),
        lambda: dtu2.output_size((9, 62, 62), width=[2] * 3, **flags),
    ):
        with pytest.raises(InputError, match=message):
            call()
