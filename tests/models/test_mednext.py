"""MedNeXt: what the paper says of it, and what its docstring does."""

from __future__ import annotations

import pytest
import torch

from deepem.models import mednext
from deepem.utils.errors import InputError

HEADS = {"affinity": (3, 4, 16, 16)}
SPECS = {"in_spec": {"input": (1, 4, 16, 16)}, "out_spec": HEADS}
SMALL = {**SPECS, "width": [4, 6, 8]}


def test_parameter_counts_are_those_of_the_docstring_and_near_the_paper():
    paper = {("small", 3): 5.6e6, ("small", 5): 5.9e6, ("base", 3): 10.5e6, ("base", 5): 11.0e6}
    for (variant, kernel), millions in paper.items():
        with torch.device("meta"):
            model = mednext.create_model(**SPECS, variant=variant, kernel_size=kernel)
        count = sum(p.numel() for p in model.parameters())
        assert f"{count:,}" in mednext.__doc__
        assert count == pytest.approx(millions, rel=0.02)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize(
    ("flags", "size"),
    [({}, (5, 16, 24)), ({"zfactor": [2, 2]}, (8, 16, 8)), ({"zfactor": [1, 3], "depth2d": 1}, (3, 8, 8))],
)
def test_the_output_has_the_size_of_the_patch(kernel, flags, size):
    assert mednext.output_size(size, width=[4, 6, 8], **flags) == size
    model = mednext.create_model(**SMALL, kernel_size=kernel, **flags)
    y = model(torch.rand(2, 1, *size))["affinity"]
    assert y.shape == (2, 3, *size)
    y.square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_sizes_that_do_not_fit_are_refused():
    assert mednext.output_size((20, 256, 256)) == (20, 256, 256)
    with pytest.raises(InputError, match="z = 16 or 32 instead of 20"):
        mednext.output_size((20, 256, 256), zfactor=[2, 2, 2, 2])
    with pytest.raises(InputError, match="y = 8 or 12 instead of 10"):
        mednext.create_model(**SMALL)(torch.rand(1, 1, 4, 10, 8))
    with pytest.raises(InputError, match="variant: got huge, wants one of small, base"):
        mednext.create_model(**SMALL, variant="huge")


def test_flat_kernels_do_not_mix_sections():
    model = mednext.create_model(**SMALL, depth2d=3, norm="batch").eval()
    x = torch.rand(1, 1, 3, 16, 16)
    other = x.clone()
    other[:, :, 1] += 1
    with torch.no_grad():
        change = (model(x)["affinity"] - model(other)["affinity"]).abs().amax((0, 1, 3, 4))
    assert change[1] > 0
    assert change[0] == change[2] == 0


def test_a_map_that_goes_down_and_up_stays_in_its_place():
    """Taps of one at the centre: up(down(x)) holds x where the stride takes it, and zero between."""
    down = mednext.Block(2, 2, 1, 3, stride=(1, 2, 2))
    up = mednext.Block(2, 2, 1, 3, rise=(1, 2, 2))
    with torch.no_grad():
        for block in (down, up):
            block.compress.weight.zero_()
            block.compress.bias.zero_()
            block.skip.weight.copy_(torch.eye(2).view(2, 2, 1, 1, 1))
            block.skip.bias.zero_()
        x = torch.rand(1, 2, 3, 6, 8)
        y = up(down(x))
    want = torch.zeros_like(x)
    want[..., ::2, ::2] = x[..., ::2, ::2]
    assert torch.equal(y, want)


def test_every_level_keeps_what_the_way_down_had():
    """Where nothing comes up from below, the skip alone carries the image."""
    core = mednext.MedNeXt([4, 6], [2, 2], [3, 3]).eval().requires_grad_(False)
    for p in core.up.parameters():
        p.zero_()
    x = torch.rand(2, 4, 2, 8, 8)
    assert torch.equal(core(x), core.dec[0](core.enc[0](x)))


def test_a_raised_map_lies_around_the_voxels_that_it_came_from():
    """The transposed convolution is symmetric about them, as the strided one is."""
    for kernel in (3, 5):
        up = mednext.Block(1, 1, 1, kernel, rise=(2, 2, 2)).depthwise
        with torch.no_grad():
            up.weight.fill_(1)
            up.bias.zero_()
            x = torch.zeros(1, 1, 5, 5, 5)
            x[..., 2, 2, 2] = 1
            y = up(x)[0, 0]
        reach = kernel // 2
        assert y.shape == (10, 10, 10)
        assert y.nonzero().amin(0).tolist() == [4 - reach] * 3
        assert y.nonzero().amax(0).tolist() == [4 + reach] * 3


@pytest.mark.parametrize("kernel", [3, 5])
def test_with_batch_norm_a_shift_by_the_pooling_shifts_the_output(kernel):
    torch.manual_seed(0)
    model = mednext.create_model(**{**SPECS, "width": [3, 4]}, norm="batch", kernel_size=kernel).eval()
    x = torch.randn(1, 1, 2, 4, 100)
    with torch.no_grad():
        whole, shifted = model(x)["affinity"], model(x[..., 2:])["affinity"]
    inner = slice(36, -36)
    assert torch.allclose(whole[..., 2:][..., inner], shifted[..., inner], atol=1e-6)
    assert not torch.allclose(whole[..., 2:], shifted, atol=1e-6)


@pytest.mark.parametrize(("norm", "depends"), [("group", True), ("batch", False)])
def test_whether_a_voxel_depends_on_the_rest_of_the_patch(norm, depends):
    """A bright object beyond the field of view moves the group norm's statistics, not the batch norm's."""
    model = mednext.create_model(**{**SPECS, "width": [3, 4]}, norm=norm).eval()
    x = torch.rand(1, 1, 2, 4, 100)
    other = x.clone()
    other[..., -4:] += 10
    with torch.no_grad():
        change = (model(x)["affinity"] - model(other)["affinity"])[..., :50].abs().max()
    assert (float(change) > 1e-4) == depends


def test_recomputing_changes_nothing_but_memory():
    plain, saving = (
        mednext.create_model(**SMALL, norm="batch"),
        mednext.create_model(**SMALL, norm="batch", checkpointing=True),
    )
    saving.load_state_dict(plain.state_dict())
    x = torch.rand(2, 1, 4, 8, 8)
    for model in (plain, saving):
        model(x)["affinity"].square().mean().backward()
    for (name, a), b in zip(plain.state_dict().items(), saving.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-6), name


def test_coarser_levels_can_be_supervised():
    model = mednext.create_model(**SMALL, deep_supervision=[0.5, 0.25])
    outputs = model(torch.rand(1, 1, 4, 8, 8))
    assert list(outputs) == ["affinity", "affinity@level1", "affinity@level2"]
    assert {y.shape for y in outputs.values()} == {(1, 3, 4, 8, 8)}
