"""Labels that are finer than the image: every voxel of a sample lies where it lies in the volume."""

from __future__ import annotations

import numpy as np
import pytest

from deepem.data.augment import flip_rotate, isotropic
from deepem.data.sampler.basic import Sampler, get_spec
from deepem.data.transform import (
    Blend,
    Compose,
    Flip,
    FlipRotate,
    Grayscale3D,
    GrayscaleMixed,
    Label,
    Misalign,
    Rotate,
    Transpose,
    Warp,
)
from deepem.data.volume import compact
from deepem.utils.errors import InputError

SIZE = (9, 12, 14)
FACTORS = [(2, 1, 1), (1, 2, 2), (3, 2, 2), (2, 3, 1)]


def coded(size: tuple[int, ...]) -> np.ndarray:
    """Each voxel's place, counted from 1."""
    return np.arange(1, np.prod(size) + 1).reshape(size)


def volume(factor: tuple[int, int, int], **more: object) -> dict[str, object]:
    """An image and ids that tell where a voxel lies; image values are in [0, 1]."""
    fine = tuple(n * f for n, f in zip(SIZE, factor, strict=True))
    image = (coded(SIZE) / (np.prod(SIZE) + 1)).astype(np.float32)
    return {"img": image, "seg": coded(fine).astype(np.int32), "label_factor": factor, **more}


def sampler(factor, patch, output, aug=None, **more) -> Sampler:
    spec = get_spec({"input": (1, *patch)}, {"affinity": (3, *output)})
    return Sampler({"v": volume(factor, **more)}, spec, aug=aug)


def places(sample, factor) -> tuple[np.ndarray, np.ndarray]:
    """(z, y, x) of each voxel of the image, in its voxels, and of the label, in its own."""
    fine = tuple(n * f for n, f in zip(SIZE, factor, strict=True))
    values = np.rint(sample["input"][0] * (np.prod(SIZE) + 1)).astype(int) - 1
    return np.stack(np.unravel_index(values, SIZE)), np.stack(np.unravel_index(sample["affinity"][0] - 1, fine))


def overlays(sample, factor, patch, output) -> bool:
    """Whether each label voxel lies in the image voxel that it lies over."""
    image, label = places(sample, factor)
    over = image
    for axis, f in enumerate(factor, 1):
        over = np.repeat(over, f, axis)
    begin = [p * f // 2 - o // 2 for p, f, o in zip(patch, factor, output, strict=True)]
    over = over[(slice(None), *(slice(b, b + o) for b, o in zip(begin, output, strict=True)))]
    return bool((label // np.reshape(factor, (3, 1, 1, 1)) == over).all())


SHAPES = [((5, 6, 8), None), ((4, 7, 6), None), ((5, 6, 8), 2), ((4, 7, 7), 2), ((5, 6, 7), 3)]
"""Patch, and voxels that the output is smaller by; None: the whole patch."""


def output_of(patch, factor, less):
    return tuple(p * f - (less or 0) for p, f in zip(patch, factor, strict=True))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(("patch", "less"), SHAPES)
@pytest.mark.parametrize("flips", ["none", "flips", "poses"])
def test_labels_overlay_the_image(factor, patch, less, flips):
    aug = {
        "none": None,
        "flips": Compose([Flip(1, 0.5), Flip(2, 0.5), Flip(3, 0.5)]),
        "poses": FlipRotate() if factor[1] == factor[2] else Transpose((0, 1, 2, 3)),
    }[flips]
    output = output_of(patch, factor, less)
    draw = sampler(factor, patch, output, aug)
    seen = set()
    for seed in range(30):
        sample = draw(np.random.default_rng(seed))
        assert sample["affinity"].shape == (1, *output)
        assert sample["input"].shape == (1, *patch)
        assert overlays(sample, factor, patch, output)
        seen.add(tuple(np.sign(np.diff(places(sample, factor)[0], axis=axis + 1)[axis].flat[0]) for axis in range(3)))
    assert len(seen) > 1 or flips != "flips"


def test_every_place_is_drawn_and_none_beyond_the_border():
    factor, patch = (2, 1, 1), (5, 6, 8)
    draw = sampler(factor, patch, output_of(patch, factor, None))
    begins = {tuple(places(draw(np.random.default_rng(seed)), factor)[0][:, 0, 0, 0]) for seed in range(6000)}
    assert begins == set(np.ndindex(*(n - p + 1 for n, p in zip(SIZE, patch, strict=True))))


def test_a_fine_mask_says_where_patches_are_centred():
    factor, patch = (2, 3, 1), (3, 4, 4)
    mask = np.zeros([n * f for n, f in zip(SIZE, factor, strict=True)], np.uint8)
    mask[9, 20:22, 7] = 1  # in voxel 4, 6 to 7, 7 of the image
    draw = sampler(factor, patch, output_of(patch, factor, None), msk=mask, loc=True)
    centres = {tuple(places(draw(np.random.default_rng(seed)), factor)[0][:, 1, 2, 2]) for seed in range(40)}
    assert centres == {(4, 6, 7), (4, 7, 7)}


def test_masks_have_the_size_of_the_labels():
    factor = (2, 1, 1)
    mask = np.zeros((18, 12, 14), np.uint8)
    mask[::2] = 1
    sample = sampler(factor, (4, 4, 4), (8, 4, 4), msk=mask)(np.random.default_rng(0))
    first = int(places(sample, factor)[1][0, 0, 0, 0])
    np.testing.assert_array_equal(sample["affinity_mask"][0, :, 0, 0], [(first + z) % 2 == 0 for z in range(8)])


@pytest.mark.parametrize(
    ("aug", "names"),
    [
        (Compose([Rotate(), FlipRotate()]), "Rotate"),
        (Compose([Grayscale3D(), Blend([Warp(), None]), Misalign((0, 5))]), "Warp, Misalign"),
        (isotropic.get_augmentation(True), "FlipRotate"),  # exchanges z with y
        (Transpose(), "Transpose"),
    ],
)
def test_an_operation_that_cannot_is_named(aug, names):
    with pytest.raises(InputError, match=rf"^augment: got {names} for v, whose labels are finer"):
        sampler((2, 1, 1), (4, 4, 4), (8, 4, 4), aug)


def test_what_can_is_not_refused():
    aug = Compose([Label(), GrayscaleMixed(), Blend([None, Flip(3)]), flip_rotate.get_augmentation(True)])
    assert sampler((2, 1, 1), (4, 4, 4), (8, 4, 4), aug)(np.random.default_rng(0))["affinity"].shape == (1, 8, 4, 4)
    sampler((2, 2, 2), (4, 4, 4), (8, 8, 8), isotropic.get_augmentation(True))


def test_labels_of_another_size_are_refused():
    given = volume((2, 1, 1)) | {"label_factor": (1, 2, 1)}
    with pytest.raises(InputError, match=r"it seg: got shape \(18, 12, 14\), wants \(9, 24, 14\): the image's, times"):
        compact("it", given, ["seg"], "train")
    for wrong in (2, (2, 1), (0, 1, 1), (1.5, 1, 1), "ab"):
        with pytest.raises(InputError, match="label_factor"):
            compact("it", given | {"label_factor": wrong}, ["seg"], "train")
