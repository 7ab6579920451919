"""Which sections are perturbed, where in them, and how alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from data.transform.encoded import grey, rng, run
from scipy.ndimage import gaussian_filter

from deepem.data.transform import (
    BlurrySection,
    MissingSection,
    MixedMissingSection,
    MixedSection,
    MotionBlur,
    PartialMissingSection,
    PartialSection,
    Sample,
    Section,
    Spec,
)
from deepem.data.transform.perturb import Change, Perturb, segment
from deepem.utils.errors import InputError

SPEC = Spec({"img": (10, 16, 18)}, ("img",))


@dataclass(frozen=True)
class Stamp(Perturb):
    """Writes a random number above 1 over each block."""

    def draw(self, rng: np.random.Generator) -> Change:
        value = 2 + rng.random()

        def change(block: Any) -> None:
            block[...] = value

        return change


def zeros(request: Spec) -> Sample:
    return {k: np.zeros((1, *s), np.float32) for k, s in request.size.items()}


def stamped(augment: Section, seed: int, spec: Spec = SPEC) -> Any:
    return run(augment, seed, spec, zeros)["img"][0]


def hit(image: Any) -> Any:
    return np.flatnonzero(image.any(axis=(1, 2)))


def test_number_of_sections_is_uniform_and_each_is_as_likely() -> None:
    counts, places = np.zeros(5), np.zeros(10)
    for seed in range(2000):
        sections = hit(stamped(Section(Stamp, maxsec=4), seed))
        counts[len(sections)] += 1
        places[sections] += 1
    assert counts[0] == 0
    assert np.allclose(counts[1:] / 2000, 1 / 4, atol=0.04)
    assert np.allclose(places / places.sum(), 1 / 10, atol=0.015)


def test_prob_is_of_each_section_and_skip_of_all() -> None:
    hits = [len(hit(stamped(Section(Stamp, prob=0.3, skip=0.25), seed))) for seed in range(2000)]
    assert np.mean(hits) == pytest.approx(10 * 0.3 * 0.75, abs=0.12)
    assert np.mean(np.array(hits) == 0) == pytest.approx(0.25 + 0.75 * 0.7**10, abs=0.03)


def test_double_takes_the_next_section_too() -> None:
    for seed in range(50):
        sections = set(hit(stamped(Section(Stamp, maxsec=1, double=True), seed)).tolist())
        assert sections in [{z, min(z + 1, 9)} for z in range(10)]


@pytest.mark.parametrize("individual", [True, False])
def test_individual_sections_draw_their_own(individual: bool) -> None:
    for seed in range(20):
        image = stamped(Section(Stamp, prob=1, individual=individual), seed)
        assert len(np.unique(image)) == (10 if individual else 1)


def test_partial_fills_quadrants_about_a_point() -> None:
    shares, values = [], []
    for seed in range(600):
        section = stamped(PartialSection(Stamp, prob=1), seed)[0]
        rows, cols = np.flatnonzero(section.any(1)), np.flatnonzero(section.any(0))
        shares.append((section > 0).mean())
        parts = len(np.unique(section[section > 0]))
        values.append(parts)
        assert parts <= 4
        for value in np.unique(section[section > 0]):
            y, x = np.nonzero(section == value)
            assert (section[y.min() : y.max() + 1, x.min() : x.max() + 1] == value).all()
            assert y.min() == 0 or y.max() == 15
            assert x.min() == 0 or x.max() == 17
        assert len(rows) == 0 or len(cols) > 0
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
    assert max(values) == 4


def test_partial_shares_one_draw_unless_individual() -> None:
    for seed in range(20):
        image = stamped(PartialSection(Stamp, prob=1, individual=False), seed)
        assert len(np.unique(image[image > 0])) <= 1


@pytest.mark.parametrize("individual", [True, False])
def test_mixed_tosses_a_coin(individual: bool) -> None:
    spec = Spec({"img": (10, 64, 64)}, ("img",))
    whole = np.array(
        [
            [(s > 0).all() for s in stamped(MixedSection(Stamp, prob=1, individual=individual), seed, spec)]
            for seed in range(300)
        ]
    )
    assert whole.mean() == pytest.approx(0.5 + 0.5 / 16, abs=0.07)  # four quadrants by chance look whole
    agree = (whole == whole[:, :1]).mean()
    assert agree > 0.9 if not individual else agree < 0.65


def test_images_of_other_sizes_are_hit_at_the_same_sections() -> None:
    spec = Spec({"img": (10, 16, 18), "small": (7, 9, 8)}, ("img", "small"))
    for seed in range(30):
        sample = run(PartialSection(Stamp, prob=0.5), seed, spec, zeros)
        assert np.array_equal(sample["small"][0], sample["img"][0, 2:9, 4:13, 5:13])


def test_bad_arguments_are_refused() -> None:
    for kwargs in ({}, {"prob": 1.5}, {"maxsec": 2, "skip": -1}):
        with pytest.raises(ValueError, match=r"maxsec|prob"):
            MissingSection(**kwargs)
    with pytest.raises(InputError, match="maxsec: got 10, wants less than the 10 sections"):
        MissingSection(10).prepare(SPEC, rng())


def test_missing_value_is_fixed_or_uniform() -> None:
    spec = Spec({"img": (4, 8, 8)}, ("img",))
    fixed = run(MissingSection(prob=1, value=0.5, random=False), 0, spec, grey)["img"]
    assert (fixed == 128).all()
    values = [run(MissingSection(prob=1, individual=False), s, spec, grey)["img"].max() / 255 for s in range(300)]
    assert np.quantile(values, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.07)


def test_reprs_name_what_is_set() -> None:
    assert (
        repr(MixedMissingSection(7, value=1, random=False, skip=0.1))
        == "MixedMissingSection(value=1, random=False, maxsec=7, skip=0.1, individual=True)"
    )
    assert "perturb='Stamp'" in repr(PartialSection(Stamp, prob=0.5))
    assert "maxsec" not in repr(PartialMissingSection(prob=0.5))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_blur_is_a_gaussian_in_the_plane(dtype: Any) -> None:
    spec = Spec({"img": (3, 40, 50)}, ("img",))
    before = grey(spec, dtype)["img"]
    _, apply = BlurrySection(prob=1, sigma=2.5, random=False).prepare(spec, rng())
    after = apply({"img": before.copy()})["img"]
    expected = gaussian_filter(before.astype(float), (0, 0, 2.5, 2.5), mode="reflect")
    assert np.abs(after - expected).max() < (1.5 if dtype == np.uint8 else 2e-3)


def test_blur_width_is_uniform() -> None:
    spec = Spec({"img": (2, 64, 64)}, ("img",))
    before = grey(spec, np.float32)["img"]
    left = [
        run(BlurrySection(prob=1, sigma=4, individual=False), s, spec, lambda _: {"img": before.copy()})["img"].std()
        for s in range(200)
    ]
    at_half = gaussian_filter(before[0, 0], 2).std()
    assert np.mean(np.array(left) > at_half) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("angle", [0.0, 0.5, np.pi / 2, 2.4])
@pytest.mark.parametrize("length", [3.0, 7.5, 15.0])
def test_motion_is_the_mean_along_a_line(length: float, angle: float) -> None:
    kernel = segment(length, angle)
    y, x = np.indices(kernel.shape) - len(kernel) // 2
    assert kernel.sum() == pytest.approx(1)
    assert (kernel * y).sum() == pytest.approx(0, abs=1e-3)
    assert (kernel * x).sum() == pytest.approx(0, abs=1e-3)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    assert (kernel * along**2).sum() == pytest.approx(length**2 / 12, abs=0.45)  # a uniform line, and shared voxels
    assert (kernel * across**2).sum() < 0.45


def test_motion_blurs_whole_sections_only_along_their_line() -> None:
    spec = Spec({"img": (4, 32, 32)}, ("img",))
    constant = run(MotionBlur(prob=1), 0, spec, lambda r: {"img": np.full((1, *r.size["img"]), 77, np.uint8)})["img"]
    assert (constant == 77).all()
    noisy = grey(spec)["img"].std()
    assert run(MotionBlur(prob=1, length=(9, 9)), 0, spec, grey)["img"].std() < 0.6 * noisy
