"""Sizes: promised and delivered; the output does not depend on where the patch began."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deepem.models.cnnectome.superres import SuperResolution
from deepem.models.cnnectome_unet import CNNectomeUNetModule, Downsample
from deepem.utils.errors import InputError

SETS = {
    "twos": ([(2, 2), (2, 2)], None, None),
    "threes": ([(3, 3), (3, 3)], [[3], [3], [1]], [[3], [3]]),
    "mixed": ([(1, 2), (2, 3)], [[(1, 3), 3], [3]], [[5], [3]]),
    "one": ([(4, 1)], [[1], [(5, 3)]], [[(1, 3), (3, 1)]]),
    "even": ([(2, 2)], [[2], [(4, 2)]], [[(2, 4)]]),
    "three levels": ([(2, 3), (2, 1), (2, 2)], [[3], [3], [3]], [[3], [3], [3]]),
    "sections": ([(1, 2, 2), (2, 2, 3)], [[(1, 3, 3)], [3], [(3, 1, 1)]], [[(1, 3, 3)], [(3, 1, 3)]]),
    "cubes": ([(2, 2, 2), (3, 1, 2)], [[3], [3], [1]], [[3, 1], [(1, 3, 5)]]),
    "frames": ([(1, 2, 2), (2, 1, 2)], [[(3, 1, 3, 3)], [(2, 3, 1, 3)], [3]], [[(1, 3, 3)], [(1, 1, 3, 1)]]),
    "clips": ([(2, 1, 2)], [[(2, 3, 3, 1), 3]], [[(3, 1, 3, 3)]]),
}
"""Factors, kernels down, kernels up; of two, three and, where kernels have four numbers, four dimensions."""


def network(name: str, **extra: object) -> CNNectomeUNetModule:
    """Of few channels and random weights, whose output depends on every voxel in reach."""
    return CNNectomeUNetModule(1, 2, 1, *SETS[name], "ELU", batch_norm=False, **extra).double().eval()


def patch(*size: int) -> torch.Tensor:
    return torch.randn(1, 1, *size, dtype=torch.float64)


def frames(net: CNNectomeUNetModule, left: int = 2) -> list[int]:
    """A length of which the network leaves so many frames, for one of four dimensions."""
    if all(len(kernel) < 4 for level in (*net.sizes.down, *net.sizes.up) for kernel in level):
        return []
    return [next(n for n in range(1, 100) if net.sizes.length(n) == left)]


def later(x: torch.Tensor, shift: Sequence[int]) -> torch.Tensor:
    """What is left of the last axes without their first voxels."""
    return x[(..., *(slice(s, None) for s in shift))]


def fitting(net: CNNectomeUNetModule, least: int = 1) -> list[int]:
    """A size along each axis for which the network gives so many voxels or more."""
    sizes = []
    for axis in range(3 - net.dims, 3):
        courses = ((n, net.sizes.course(axis, n)) for n in range(1, 1000))
        sizes.append(next(n for n, c in courses if c and c.size >= least and not any(c.tight)))
    return sizes


kernel = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def networks(draw) -> dict:
    levels = draw(st.integers(1, 3))
    level = st.lists(kernel, min_size=1, max_size=2)
    return {
        "downsample_factors": [draw(kernel) for _ in range(levels)],
        "kernel_size_down": [draw(level) for _ in range(levels + 1)],
        "kernel_size_up": [draw(level) for _ in range(levels)],
        "padding": draw(st.sampled_from(["valid", "same"])),
        "constant_upsample": draw(st.booleans()),
        "use_attention": draw(st.booleans()),
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks(), st.tuples(st.integers(1, 40), st.integers(1, 40)), st.sampled_from([True, False]))
def test_what_is_promised_is_delivered_and_what_is_refused_names_what_works(chosen, size, equivariant):
    net = CNNectomeUNetModule(1, 1, 1, **chosen, equivariant=equivariant).eval()
    x = torch.zeros(1, 1, *size)
    try:
        promised = net.sizes.output_size(size)
    except InputError as error:
        with pytest.raises(RuntimeError):
            net(x)
        for part in error.wants.partition(": ")[2].split("; "):
            axis, _, words = part.partition(" instead")[0].partition(" = ")
            for n in words.replace(" or ", ", ").split(", "):
                assert n != "none"
                assert net.sizes.course("zyx".index(axis), int(n)) is not None
    else:
        with torch.no_grad():
            assert net(x).shape[2:] == promised


@settings(max_examples=40, deadline=None)
@given(networks(), st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_what_the_arithmetic_refuses_torch_refuses_too(chosen, size):
    """Without the check at the front, the layers themselves fail on what it refuses, and only on that."""
    net = CNNectomeUNetModule(1, 1, 1, **chosen).eval()
    try:
        net.sizes.output_size(size)
        fits = True
    except InputError:
        fits = False
    try:
        with torch.no_grad():
            net._below(0, torch.zeros(1, 1, *size))
        ran = True
    except RuntimeError:
        ran = False
    assert fits == ran


@pytest.mark.parametrize("equivariant", [True, "eval"])
@pytest.mark.parametrize("name", SETS)
def test_the_output_of_a_shifted_input_is_the_shifted_output(name, equivariant):
    net = network(name, equivariant=equivariant)
    size, shift = [*frames(net), *fitting(net)], [*(1 for _ in frames(net)), *net.sizes.step[-net.dims :]]
    x = patch(*(n + s for n, s in zip(size, shift, strict=True)))
    with torch.no_grad():
        whole, shifted = net(x), net(later(x, shift))
    assert shifted.numel()
    assert shifted.dim() == x.dim()
    torch.testing.assert_close(later(whole, shift), shifted)


@pytest.mark.parametrize("name", SETS)
def test_outputs_laid_edge_to_edge_are_the_output_of_the_whole(name):
    net = network(name)
    size = fitting(net, 2)
    step = net.sizes.output_size(size)
    assert all(s % prod(f[axis] for f in net.downsample_factors) == 0 for axis, s in enumerate(step))
    volume = patch(*frames(net), *(n + 2 * s for n, s in zip(size, step, strict=True)))
    with torch.no_grad():
        whole = net(volume)
        for tiles in product(range(3), repeat=net.dims):
            begin = [i * s for i, s in zip(tiles, step, strict=True)]
            box = [[slice(b, b + n) for b, n in zip(begin, side, strict=True)] for side in (size, step)]
            torch.testing.assert_close(net(volume[(..., *box[0])]), whole[(..., *box[1])])


@pytest.mark.parametrize("name", SETS)
def test_padded_networks_are_equivariant_away_from_the_border(name):
    net = network(name, padding="same")
    period = net.sizes.step[-net.dims :]
    size = [12 * p if p > 1 else 20 * (4 - net.dims) for p in period]
    x = patch(*(3 for _ in frames(net)), *(n + p for n, p in zip(size, period, strict=True)))
    with torch.no_grad():
        whole, shifted = net(x), net(later(x, period))
    middle = [slice(n // 2 - 1, n // 2 + 1) for n in shifted.shape[-net.dims :]]
    moved = [slice(s.start + p, s.stop + p) for s, p in zip(middle, period, strict=True)]
    torch.testing.assert_close(whole[(..., *moved)], shifted[(..., *middle)], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("factors", [[(2, 2)] * 3, [(3, 2)] * 3, [(3, 3)] * 2, [(3, 1)]])
def test_eval_crops_only_in_evaluation_and_there_what_training_would_give(factors):
    """The cropped output is the centre of the whole one, though maps deep inside were cropped, too."""
    made = {}
    for equivariant in (True, False, "eval"):
        torch.manual_seed(0)
        lists = {"kernel_size_down": [[3]] * (len(factors) + 1), "kernel_size_up": [[3]] * len(factors)}
        made[equivariant] = CNNectomeUNetModule(1, 2, 1, factors, **lists, batch_norm=False, equivariant=equivariant)
        made[equivariant].double()
    x = patch(*(max(fitting(net)[axis] for net in made.values()) for axis in range(2)))
    with torch.no_grad():
        training = {key: net.train()(x) for key, net in made.items()}
        evaluation = {key: net.eval()(x) for key, net in made.items()}
    assert training["eval"].shape == training[False].shape == evaluation[False].shape
    assert evaluation["eval"].shape[2:] == made["eval"].sizes.output_size(x.shape[2:])
    assert training["eval"].shape[2:] == made["eval"].sizes.output_size(x.shape[2:], training=True)
    torch.testing.assert_close(training["eval"], evaluation[False])
    inner = evaluation["eval"].shape[2:]
    starts = [(n - k) // 2 for n, k in zip(training["eval"].shape[2:], inner, strict=True)]
    box = (..., *(slice(s, s + k) for s, k in zip(starts, inner, strict=True)))
    torch.testing.assert_close(evaluation["eval"], training["eval"][box])
    assert evaluation[True].shape == training[True].shape


def test_a_crop_that_would_move_maps_between_training_and_evaluation_is_refused():
    lists = {"kernel_size_down": [[3]] * 3, "kernel_size_up": [[3], [2]]}
    CNNectomeUNetModule(1, 2, 1, [(2, 2)] * 2, **lists)
    with pytest.raises(InputError, match=r"kernel_size_up: .* wants odd kernels"):
        CNNectomeUNetModule(1, 2, 1, [(2, 2)] * 2, **lists, equivariant="eval")


def test_three_sections_are_enough_for_a_padded_network_that_is_cropped_in_plane():
    """Where the public crop refuses: it wants all axes large once one is cropped."""
    factors = [(1, 2, 2)] * 3
    public = CNNectomeUNetModule(1, 1, 1, factors, padding="same").eval()
    with pytest.raises(InputError, match="z = 5, 6 or 7 instead of 3"):
        public(torch.zeros(1, 1, 3, 32, 32))
    assert public(torch.zeros(1, 1, 5, 32, 32)).shape[2:] == (5, 28, 28)
    ours = CNNectomeUNetModule(1, 1, 1, factors, padding="same", equivariant="eval").eval()
    assert ours(torch.zeros(1, 1, 3, 32, 32)).shape[2:] == (3, 28, 28)


def test_pooling_names_the_nearest_sizes():
    with pytest.raises(RuntimeError, match=r"nearest 3, 8 or 12"):
        Downsample((3, 4))(torch.zeros(1, 1, 3, 11))
    with pytest.raises(RuntimeError, match=r"wants \(N, C, Y, X\)"):
        Downsample((3, 4))(torch.zeros(1, 1, 3, 3, 12))


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_super_resolution_gives_the_size_it_promises(padding):
    unet = CNNectomeUNetModule(1, 2, 1, [(1, 2, 2)], num_heads=2, padding="same")
    net = SuperResolution(unet, [(2, 1, 1), (1, 3, 2)], padding).eval()
    outputs = net(torch.zeros(1, 1, 8, 12, 12))
    assert len(outputs) == 2
    want = (16, 36, 24) if padding == "same" else (8, 20, 12)
    assert outputs[0].shape[2:] == outputs[1].shape[2:] == net.sizes.output_size((8, 12, 12)) == want
    with pytest.raises(InputError, match="y = 12 or 14 instead of 13"):
        net(torch.zeros(1, 1, 8, 13, 12))


@pytest.mark.parametrize("name", SETS)
def test_context_step_and_smallest_input_are_those_of_the_network(name):
    net = network(name, equivariant=False)
    first = 3 - net.dims
    step, context, least = (value[first:] for value in (net.sizes.step, net.sizes.context, net.sizes.smallest()))
    for size in (least, tuple(n + s for n, s in zip(least, step, strict=True))):
        with torch.no_grad():
            made = net(patch(*frames(net), *size))
        assert made.shape[-net.dims :] == tuple(n - c for n, c in zip(size, context, strict=True))
    for axis, (n, s) in enumerate(zip(least, step, strict=True), first):
        for other in range(1, n + s):
            if other != n:
                assert net.sizes.course(axis, other) is None
    assert network(name).sizes.smallest()[first:] == tuple(fitting(network(name)))
