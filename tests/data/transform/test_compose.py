"""One after the other, one of several, and how they are drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from data.transform.encoded import SPEC, rng, run

from deepem.data.transform import Apply, Augment, Blend, Compose, Flip, MissingSection, Sample, Spec
from deepem.utils.errors import InputError


class Note(Augment):
    """Grows by a number and writes down when it is asked and when it acts."""

    def __init__(self, name: str, by: int, book: list[str]) -> None:
        self.name, self.by, self.book = name, by, book

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        self.book.append(f"ask {self.name} for {spec.size['img'][0]}")

        def apply(sample: Sample) -> Sample:
            self.book.append(f"do {self.name}")
            return {k: a[:, : a.shape[1] - self.by] for k, a in sample.items()}

        return spec.grown((self.by, 0, 0)), apply


def test_asks_from_last_to_first_and_acts_from_first_to_last() -> None:
    book: list[str] = []
    out = run(Compose([Note("a", 2, book), None, Note("b", 3, book)]))
    assert book == ["ask b for 9", "ask a for 12", "do a", "do b"]
    assert out["img"].shape == (3, *SPEC.size["img"])


def test_empty_changes_nothing() -> None:
    request, _ = Compose([]).prepare(SPEC, rng())
    assert request is SPEC


def test_blend_draws_by_weight_and_nothing_is_a_choice() -> None:
    book: list[str] = []
    blend, generator = Blend([Note("a", 1, book), Note("b", 1, book), None], [1, 2, 5]), rng(7)
    requests = [blend.prepare(SPEC, generator)[0] for _ in range(4000)]
    counts = Counter(line[4] for line in book)
    assert counts["a"] / 4000 == pytest.approx(1 / 8, abs=0.02)
    assert counts["b"] / 4000 == pytest.approx(2 / 8, abs=0.02)
    assert sum(r is SPEC for r in requests) / 4000 == pytest.approx(5 / 8, abs=0.02)


def test_a_choice_that_does_not_fit_is_refused_at_the_first_sample() -> None:
    blend = Blend([None, Compose([Flip(-1), MissingSection(9)])], [1000, 1])
    for seed in range(5):
        with pytest.raises(InputError, match="MissingSection maxsec: got 9, wants less than the 9 sections"):
            Compose([blend]).prepare(SPEC, rng(seed))


def test_blend_is_even_by_default() -> None:
    assert Blend([None, None, None, None]).props == (0.25, 0.25, 0.25, 0.25)


@pytest.mark.parametrize("props", [[1], [1, -1], [0, 0], [1, float("nan")]])
def test_bad_weights_are_refused(props: list[float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        Blend([None, None], props)
    with pytest.raises(ValueError, match="weights"):
        Blend([])


def test_is_drawn_as_a_tree_with_its_probabilities() -> None:
    drawn = repr(Compose([Blend([Compose([Flip(-1), Flip(-2)]), None], [3, 1]), Flip(-3, 0.2)]))
    assert drawn.splitlines() == [
        "Compose",
        "├─ Blend",
        "│  ├─ 0.75  Compose",
        "│  │  ├─ Flip(axis=-1, prob=0.5)",
        "│  │  └─ Flip(axis=-2, prob=0.5)",
        "│  └─ 0.25  nothing",
        "└─ Flip(axis=-3, prob=0.2)",
    ]
