"""What every augmentation promises: it asks for enough, gives what was asked for, keeps voxels together and types."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from data.transform.encoded import encode, grey, rng, together
from hypothesis import given, settings
from hypothesis import strategies as st

from deepem.data import transform as t
from deepem.data.transform import Augment, Spec

MOVING: dict[str, Augment] = {
    "Flip": t.Flip(-1),
    "Transpose": t.Transpose(),
    "FlipRotate": t.FlipRotate(),
    "FlipRotate isotropic": t.FlipRotate(isotropic=True),
    "Warp": t.Warp(do_twist=False, rot_max=45),
    "Warp twisted": t.Warp(rot_max=30),
    "Warp elastic": t.Warp(elastic_max=3, elastic_grid=12),
    "Misalign": t.Misalign((0, 9)),
    "Misalign turned": t.Misalign((0, 5), rot=20),
    "Misalign by 1": t.Misalign((1, 2)),
    "SlipMisalign": t.SlipMisalign((3, 9)),
    "SlipMisalign turned": t.SlipMisalign((0, 4), rot=10),
    "Rotate": t.Rotate(),
    "Rotate a little": t.Rotate(25, voxel_size=(4, 1, 1), scale=(0.9, 1.1)),
    "LostSection": t.LostSection(1),
    "LostSection 2": t.LostSection(2),
    "Compose": t.Compose([t.Misalign((0, 5)), t.LostSection(1), t.Warp(), t.Misalign((1, 4)), t.FlipRotate()]),
    "Compose turned": t.Compose([t.Rotate(20), t.Misalign((0, 5)), t.LostSection(1), t.FlipRotate(isotropic=True)]),
}
"""Those that move voxels of all arrays alike, and leave grey values alone."""

TURNING = {"Transpose", "FlipRotate isotropic", "Rotate", "Rotate a little", "Compose turned"}
"""Those that may read less along an axis than is asked for."""

OTHERS: dict[str, Augment] = {
    "Grayscale3D": t.Grayscale3D(skip=0),
    "Grayscale2D": t.Grayscale2D(),
    "GrayscaleMixed": t.GrayscaleMixed(),
    "MixedGrayscale2D": t.MixedGrayscale2D(prob=0.5),
    "PartialGrayscale2D": t.PartialGrayscale2D(maxsec=2),
    "MissingSection": t.MissingSection(2),
    "PartialMissingSection": t.PartialMissingSection(2),
    "MixedMissingSection": t.MixedMissingSection(prob=0.3),
    "BlurrySection": t.BlurrySection(2),
    "PartialBlurrySection": t.PartialBlurrySection(2),
    "MixedBlurrySection": t.MixedBlurrySection(2, individual=False),
    "MotionBlur": t.MotionBlur(2),
    "PartialMotionBlur": t.PartialMotionBlur(2),
    "MixedMotionBlur": t.MixedMotionBlur(2),
    "SlipMisalign interp": t.SlipMisalign((3, 9), interp=True),
    "MisalignPlusMissing": t.MisalignPlusMissing((1, 9), random=True),
    "MisalignTrackMissing": t.MisalignTrackMissing(t.Track(width=12, margin=2, sigma=(3, 3, 1)), (1, 6)),
    "LostPlusMissing": t.LostPlusMissing(),
    "Track": t.Track(width=12, margin=2, sigma=(3, 3, 1)),
    "FillBox": t.FillBox((2, 9)),
    "BlurBox": t.BlurBox((4, 9), aniso=2),
    "CutBlur": t.CutBlur((4, 9), aniso=2, isotropic=True),
    "NoiseBox": t.NoiseBox((2, 9), margin=(1, 3, 3)),
    "GaussianNoise": t.GaussianNoise(),
    "PoissonNoise": t.PoissonNoise(maxsec=2),
    "SaltNoise": t.SaltNoise(),
    "Sharpen": t.Sharpen(),
    "HistogramShift": t.HistogramShift(),
    "ContrastStep": t.ContrastStep(),
    "CopyPaste": t.CopyPaste(skip=0),
    "Label": t.Label(),
    "Blend": t.Blend([None, t.MissingSection(1), t.Warp()]),
}

sizes = st.tuples(st.integers(5, 9), st.integers(8, 24), st.integers(8, 24))


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    """Several arrays, all odd and even mixes."""
    return Spec({key: draw(sizes) for key in ("img", "seg", "mit")}, ("img",), ("seg",))


def test_no_class_is_left_out() -> None:
    tried = {type(a).__name__ for a in (MOVING | OTHERS).values()}
    bases = {"Augment", "Section", "PartialSection", "MixedSection"}
    offered = {n for n in t.__all__ if isinstance(getattr(t, n), type) and issubclass(getattr(t, n), Augment)}
    assert offered - bases == tried


@pytest.mark.parametrize("name", [*MOVING, *OTHERS])
@settings(max_examples=25, deadline=None)
@given(spec=specs(), seed=st.integers(0, 10**6), dtype=st.sampled_from([np.uint8, np.float32]), of_volume=st.booleans())
def test_request_suffices_and_sample_is_as_asked(
    name: str, spec: Spec, seed: int, dtype: type, of_volume: bool
) -> None:
    augment = (MOVING | OTHERS)[name]
    results = []
    for _ in range(2):
        generator = rng(seed)
        request, apply = augment.prepare(spec, generator)
        if name not in TURNING:
            pairs = [(sorted(request.size[k]), sorted(spec.size[k])) for k in spec.size]
            assert all(r >= s for large, small in pairs for r, s in zip(large, small, strict=True))
        given_ = grey(request, dtype)
        if of_volume:
            for array in given_.values():
                array.flags.writeable = False
        untouched = copy.deepcopy(given_)
        sample = apply(dict(given_))
        assert {k: a.shape[1:] for k, a in sample.items()} == dict(spec.size)
        assert {k: a.dtype for k, a in sample.items()} == {k: a.dtype for k, a in given_.items()}
        if of_volume:
            assert all(np.array_equal(given_[k], untouched[k]) for k in given_)
        if dtype == np.float32:
            assert sample["img"].min() >= 0
            assert sample["img"].max() <= 1
        results.append((sample, generator.random()))
    (one, after), (two, after_too) = results
    assert all(np.array_equal(one[k], two[k]) for k in one)
    assert after == after_too


@pytest.mark.parametrize("name", MOVING)
@settings(max_examples=30, deadline=None)
@given(spec=specs(), seed=st.integers(0, 10**6), id_type=st.sampled_from([np.int32, np.int64]), own=st.booleans())
def test_arrays_stay_together(name: str, spec: Spec, seed: int, id_type: type, own: bool) -> None:
    request, apply = MOVING[name].prepare(spec, rng(seed))
    sample = encode(request, id_type)
    for array in sample.values():
        array.flags.writeable = own
    assert together(apply(sample))


MOVES_LABELS = {"Label", "CopyPaste", "Blend", "LostPlusMissing", "MisalignPlusMissing", "MisalignTrackMissing"}


@pytest.mark.parametrize("name", [n for n in OTHERS if n not in MOVES_LABELS])
def test_images_alone_are_changed(name: str) -> None:
    spec = Spec({"img": (8, 32, 32), "seg": (8, 32, 32)}, ("img",), ("seg",))
    changed = 0
    for seed in range(4):
        request, apply = OTHERS[name].prepare(spec, rng(seed))
        before = grey(request)
        after = apply(copy.deepcopy(before))
        changed += not np.array_equal(after["img"], before["img"][:, :8, :32, :32])
        if request == spec:
            assert np.array_equal(after["seg"], before["seg"])
    assert changed


@pytest.mark.parametrize("name", [*MOVING, *OTHERS])
def test_samples_without_images_pass(name: str) -> None:
    spec = Spec({"seg": (6, 16, 16)}, (), ("seg",))
    request, apply = (MOVING | OTHERS)[name].prepare(spec, rng(1))
    assert apply(encode(request))["seg"].shape == (1, 6, 16, 16)
