"""Misaligned, slipped and lost sections, told from the positions that their voxels hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.transform.encoded import SPEC, STEP, encode, rng, run, together, where

from deepem.data.transform import (
    LostPlusMissing,
    LostSection,
    Misalign,
    MisalignPlusMissing,
    MisalignTrackMissing,
    SlipMisalign,
    Spec,
    Track,
)

ONE = Spec({"img": (10, 16, 16), "seg": (10, 16, 16)}, ("img",), ("seg",))


def shifts(sample: Any, key: str = "seg") -> Any:
    """(Z, 2): where the centre of each section was read."""
    if key == "img":
        _, y, x = np.rint((sample["img"] - 0.5) / STEP).astype(int)
    else:
        _, y, x = where(sample[key])
    return np.stack([y[:, y.shape[1] // 2, y.shape[2] // 2], x[:, x.shape[1] // 2, x.shape[2] // 2]], -1)


def test_misalign_shifts_everything_from_one_section_on() -> None:
    at, by = [], []
    for seed in range(400):
        sample = run(Misalign((2, 6), margin=1), seed, ONE)
        steps = np.diff(shifts(sample), axis=0)
        assert np.array_equal(shifts(sample), shifts(sample, "img"))
        (where_,) = np.flatnonzero(steps.any(1))
        at.append(where_ + 1)
        by.append(steps[where_])
    assert set(at) == set(range(2, 9))
    values, counts = np.unique(by, return_counts=True)
    assert values.tolist() == [-5, -4, -3, -2, 2, 3, 4, 5]
    assert counts.min() > 60


def test_request_grows_by_the_displacement_and_no_more() -> None:
    for seed in range(50):
        request, apply = Misalign((0, 6)).prepare(ONE, rng(seed))
        (z, y, x), moved = request.size["seg"], np.ptp(shifts(apply(encode(request))), axis=0)
        assert z == 10
        assert y == 16 + moved[0] + moved[0] % 2
        assert x == 16 + moved[1] + moved[1] % 2


def test_slip_shifts_one_section() -> None:
    at = []
    for seed in range(200):
        sample = run(SlipMisalign((3, 4)), seed, ONE)
        moved = (shifts(sample) != shifts(sample)[0]).any(1)
        assert moved.sum() == 1
        assert np.array_equal(shifts(sample), shifts(sample, "img"))
        at.append(int(np.argmax(moved)))
    assert set(at) == set(range(2, 9))


def test_slip_may_spare_labels() -> None:
    sample = run(SlipMisalign((3, 4), interp=True), 0, ONE)
    assert not np.ptp(shifts(sample), axis=0).any()
    assert np.ptp(shifts(sample, "img"), axis=0).tolist() == [3, 3]


@pytest.mark.parametrize("disp", [(1, 2), (1, 1), (0, 1), (0, 0), (0, 2)])
def test_the_smallest_displacements_work(disp: tuple[int, int]) -> None:
    for cls in (Misalign, SlipMisalign, MisalignPlusMissing):
        for seed in range(30):
            sample = run(cls(disp), seed, ONE)
            assert np.ptp(shifts(sample), axis=0).max() == max(disp[0], disp[1] - 1 if disp[0] == 0 else 0) or disp == (
                0,
                2,
            )


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_thin_patches_stay_as_they_are(depth: int) -> None:
    spec = Spec({"img": (depth, 8, 8), "seg": (depth, 8, 8)}, ("img",), ("seg",))
    for cls in (Misalign, SlipMisalign, MisalignPlusMissing):
        sample = run(cls((3, 4), margin=1), 0, spec)
        assert not np.ptp(shifts(sample), axis=0).any()


def test_turned_part_keeps_its_angle() -> None:
    angles = []
    for seed in range(150):
        sample = run(Misalign((0, 1), rot=15), seed, ONE)
        assert together(sample)
        _, y, x = (sample["img"] - 0.5) / STEP
        angle = np.rad2deg(np.arctan2(y[:, 8, 15] - y[:, 8, 0], x[:, 8, 15] - x[:, 8, 0]))
        assert np.count_nonzero(np.diff(angle.round(3))) <= 1
        assert angle[0] == pytest.approx(0, abs=0.2)
        angles.append(angle[-1])
    assert np.quantile(angles, [0, 0.5, 1]) == pytest.approx([-15, 0, 15], abs=2.5)


@pytest.mark.parametrize("seed", range(30))
def test_missing_sections_lie_between(seed: int) -> None:
    sample = run(MisalignPlusMissing((3, 15), value=0.9), seed, ONE)
    missing = np.flatnonzero((sample["img"] == np.float32(0.9)).all((0, 2, 3)))
    assert len(missing) in (1, 2)
    at = shifts(sample)
    start, end = at[0], at[-1]
    first, behind = missing[0], missing[-1] + 1
    assert (at[:first] == start).all()
    assert (at[behind:] == end).all()
    for i, z in enumerate(missing, 1):
        assert np.abs(at[z] - (start + (end - start) * i / (len(missing) + 1))).max() <= 0.5
    seen = [z for z in range(10) if z not in missing]
    assert np.array_equal(shifts(sample, "img")[seen], at[seen])


def test_one_or_two_are_missing_and_random_values_differ() -> None:
    counts, values = [], []
    for seed in range(300):
        image = run(MisalignPlusMissing((3, 5), random=True), seed, ONE)["img"]
        flat = np.flatnonzero(np.ptp(image, axis=(0, 2, 3)) == 0)
        counts.append(len(flat))
        values += [float(image[0, z, 0, 0]) for z in flat]
    assert np.mean(counts) == pytest.approx(1.5, abs=0.1)
    assert len(set(values)) == len(values)
    assert np.quantile(values, [0, 0.5, 1]) == pytest.approx([0, 0.5, 1], abs=0.08)


def test_track_lies_before_and_behind_the_missing_sections() -> None:
    track = Track(width=12, margin=2, sigma=(2, 2, 1))
    for seed in range(20):
        _, apply = MisalignTrackMissing(track, (0, 0), value=1).prepare(ONE, rng(seed))
        image = apply({k: np.full((1, *s), 0.25, np.float32) for k, s in ONE.size.items()})["img"][0]
        missing = np.flatnonzero((image == 1).all((1, 2)))
        painted = np.flatnonzero((image > 0.2501).any((1, 2)) & ~(image == 1).all((1, 2)))
        assert painted.tolist() == [missing[0] - 1, missing[-1] + 1]


@pytest.mark.parametrize("nsec", [1, 2, 3])
@pytest.mark.parametrize("own", [True, False])
def test_lost_sections_leave_a_gap_of_their_number(nsec: int, own: bool) -> None:
    at = set()
    for seed in range(100):
        request, apply = LostSection(nsec).prepare(SPEC, rng(seed))
        sample = encode(request)
        for array in sample.values():
            array.flags.writeable = own
        sample = apply(sample)
        assert together(sample)
        steps = np.diff(where(sample["seg"])[0][:, 0, 0])
        assert sorted(steps) == [1] * 6 + [1 + nsec]
        at.add(int(np.argmax(steps)) + 1)
    assert at >= set(range(2, 7))


def test_lost_plus_missing_loses_two_and_fills_the_next() -> None:
    for seed in range(30):
        sample = run(LostPlusMissing(value=0.75), seed, ONE)
        steps = np.diff(where(sample["seg"])[0][:, 0, 0])
        assert sorted(steps) == [1] * 8 + [3]
        (missing,) = np.flatnonzero((sample["img"] == 0.75).all((0, 2, 3)))
        assert missing == np.argmax(steps) + 1


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [(Misalign, ((3, 2),)), (SlipMisalign, ((-1, 2),)), (Misalign, ((0, 2), -1)), (LostSection, (0,))],
)
def test_bad_arguments_are_refused(cls: Any, arguments: Any) -> None:
    with pytest.raises(ValueError, match="got"):
        cls(*arguments)
