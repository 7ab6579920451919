"""Test-time augmentation in `predict`, against the slow and obvious way: whole predictions, a stack, a nanmean."""

import numpy as np
import pytest
import torch
from torch import nn

from deepem.test.forward import predict
from deepem.utils.errors import InputError

NEAREST = [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
FAR = [(0, 0, -3), (0, -3, 0), (-2, 0, 0), (0, 1, 2), (0, -2, 1)]
SIZES = {"patch_size": (4, 8, 6), "overlap": (1, 3, 2)}


@pytest.fixture
def net():
    torch.manual_seed(0)
    conv = nn.Conv3d(1, 9, 3, padding=1)
    nn.init.normal_(conv.weight)

    def model(patches):
        logits = conv(patches)
        return {"affinity": logits[:, :3], "long_range": logits[:, 3:8], "mitochondria": logits[:, 8:]}

    return model


def image():
    return np.random.default_rng(0).random((7, 17, 19), np.float32)


def turned(array, number, back=False):
    bits = f"{number:04b}"
    axes = [i - 3 for i, bit in enumerate(bits[:3]) if bit == "1"]
    if back:
        array = array.swapaxes(-1, -2) if number % 2 else array
        return np.flip(array, axes)
    array = np.flip(array, axes)
    return array.swapaxes(-1, -2) if number % 2 else array


def one_flip(net, volume, number, edges, **options):
    """The prediction of the flipped volume, brought back voxel by voxel; NaN where a flip knows nothing."""
    found = {}
    for name, value in predict(net, turned(volume, number), **options).items():
        back = turned(value, number, back=True)
        if name not in edges:
            found[name] = back
            continue
        found[name] = np.full(back.shape, np.nan)
        sign = [-1 if bit == "1" else 1 for bit in f"{number:04b}"[:3]]
        for source, edge in enumerate(edges[name]):
            z, y, x = edge
            seen = tuple(s * d for s, d in zip(sign, (z, x, y) if number % 2 else edge, strict=True))
            for target, wanted in enumerate(edges[name]):
                shift = np.zeros(3, int) if wanted == seen else np.array(wanted)
                if wanted != seen and tuple(-shift) != seen:
                    continue
                moved = np.full(back.shape[1:], np.nan)
                to = tuple(slice(max(d, 0), n + min(d, 0)) for d, n in zip(shift, moved.shape, strict=True))
                from_ = tuple(slice(max(-d, 0), n + min(-d, 0)) for d, n in zip(shift, moved.shape, strict=True))
                moved[to] = back[source][from_]
                found[name][target] = moved
    return found


@pytest.mark.parametrize("numbers", [range(16), [0, 2, 5, 15], [9]])
def test_the_mean_and_variance_over_flips_are_those_of_the_known_values(net, numbers):
    edges = {"affinity": NEAREST, "long_range": FAR}
    found = predict(net, image(), edges=edges, test_aug=numbers, variance=True, **SIZES)
    each = [one_flip(net, image(), k, edges, **SIZES) for k in numbers]
    assert list(found) == [
        *("affinity", "long_range", "mitochondria"),
        *("affinity_var", "long_range_var", "mitochondria_var"),
    ]
    for name in ("affinity", "long_range", "mitochondria"):
        stack = np.stack([one[name] for one in each])
        known = np.isfinite(stack)
        count = np.maximum(known.sum(0), 1)
        mean = np.where(known, stack, 0).sum(0) / count
        variance = (np.where(known, stack - mean, 0) ** 2).sum(0) / count
        np.testing.assert_allclose(found[name], mean, atol=1e-6)
        np.testing.assert_allclose(found[f"{name}_var"], variance, atol=1e-6)


def test_planes_that_some_flip_does_not_know_are_not_dragged_to_zero(net):
    plain = predict(net, image(), **SIZES)["affinity"]
    found = predict(net, image(), test_aug=[0, 2], **SIZES)["affinity"]
    np.testing.assert_array_equal(found[0, :, :, 0], plain[0, :, :, 0])  # x = 0: only flip 0 knows it
    assert not np.array_equal(found[1, :, :, 0], plain[1, :, :, 0])


def test_the_first_of_sixteen_is_no_flip(net):
    plain, found = (predict(net, image(), test_aug=aug, **SIZES) for aug in (None, [0]))
    for name in plain:
        np.testing.assert_allclose(found[name], plain[name], atol=1e-7)


def test_an_odd_crop_lies_elsewhere_in_the_flipped_volume(net):
    options = {"patch_size": (4, 8, 8), "output_size": (3, 5, 6), "overlap": (1, 2, 2)}
    found = predict(net, image(), test_aug=[0, 14], **options)["mitochondria"][0]
    same = predict(net, image(), **options)["mitochondria"][0]
    other = predict(net, turned(image(), 14), **options)["mitochondria"][0][::-1, ::-1, ::-1]
    mean = same.copy()  # z: crop 0 in front, 1 behind; y: 1 and 2; flipped back they lie one voxel further
    mean[1:, 1:] = (same[1:, 1:] + other[:-1, :-1]) / 2
    np.testing.assert_allclose(found, mean, atol=1e-6)


def test_masks_leave_out_planes_without_partner(net):
    options = {**SIZES, "blend": "mean"}
    found = predict(net, image(), mask_edges=True, **options)["affinity"]
    # x = 4 lies in the patches at 0 and 4, and only that at 0 has its partner
    first = predict(net, image()[:, :, :6], **options)["affinity"]
    np.testing.assert_allclose(found[0, :, :, 4], first[0, :, :, 4], atol=1e-6)
    assert not np.allclose(found[1, :, :, 4], first[1, :, :, 4], atol=1e-6)
    for given in (NEAREST, {"affinity": NEAREST}):
        np.testing.assert_array_equal(predict(net, image(), mask_edges=given, **options)["affinity"], found)


@pytest.mark.parametrize(
    "options",
    [
        {"test_aug": [16]},
        {"variance": True},
        {"edges": [(0, 0, 1)]},
        {"edges": {"affinity": [(0, 0, 1)]}},
        {"edges": {"nothing": NEAREST}},
        {"mask_edges": {"mitochondria": NEAREST}},
    ],
)
def test_what_does_not_fit_the_network_is_refused(net, options):
    with pytest.raises(InputError):
        predict(net, image(), **SIZES, **options)
