"""Combine augmentations: apply several in sequence, or draw one of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deepem.data.transform.base import Apply, Augment, Sample, Spec, keep
from deepem.utils.geometry import Vec3


class Compose(Augment):
    """Apply augmentations in sequence; an empty list changes nothing.

    The last augmentation gets the network's request. Each earlier one gets the request as enlarged by those after it.
    """

    def __init__(self, augments: Sequence[Augment | None]) -> None:
        self.augments = tuple(a for a in augments if a is not None)

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Prepare the augmentations from last to first; they are applied from first to last."""
        steps = []
        for augment in reversed(self.augments):
            spec, step = augment.prepare(spec, rng)
            steps.append(step)
        if not steps:
            return spec, keep

        def apply(sample: Sample) -> Sample:
            for step in reversed(steps):
                sample = step(sample)
            return sample

        return spec, apply

    def check(self, spec: Spec) -> None:
        """Refuse a request that any of the augmentations refuses."""
        for augment in self.augments:
            augment.check(spec)

    def unsuited(self, factor: Vec3) -> list[Augment]:
        """Return the unsuited operations of all augmentations."""
        return [part for augment in self.augments for part in augment.unsuited(factor)]

    def lines(self) -> list[str]:
        """Return the repr's lines, with the augmentations from first to last."""
        return ["Compose", *_branches([a.lines() for a in self.augments])]


class Blend(Augment):
    """Apply one of several augmentations to each sample, drawn by weight.

    Args:
        augments: The choices; None means no augmentation.
        props: Weights of the choices, with any sum; equal by default.
    """

    def __init__(self, augments: Sequence[Augment | None], props: Sequence[float] | None = None) -> None:
        weights = np.ones(len(augments)) if props is None else np.asarray(props, float)
        if not len(augments) or len(weights) != len(augments):
            raise ValueError(f"Blend: got {len(weights)} weights for {len(augments)} augmentations, wants one each")
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise ValueError(f"Blend: got weights {weights.tolist()}, wants non-negative ones that are not all zero")
        self.augments = tuple(augments)
        self.props: tuple[float, ...] = tuple((weights / weights.sum()).tolist())

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        """Draw a choice and prepare it; raise InputError if any choice, drawn or not, cannot serve the request."""
        self.check(spec)
        chosen = self.augments[rng.choice(len(self.augments), p=self.props)]
        return (spec, keep) if chosen is None else chosen.prepare(spec, rng)

    def check(self, spec: Spec) -> None:
        """Refuse a request that any of the choices refuses."""
        for augment in self.augments:
            if augment is not None:
                augment.check(spec)

    def unsuited(self, factor: Vec3) -> list[Augment]:
        """Return the unsuited operations of all choices."""
        return [part for augment in self.augments if augment for part in augment.unsuited(factor)]

    def lines(self) -> list[str]:
        """Return the repr's lines, with the choices and their probabilities."""
        parts = [["nothing"] if a is None else a.lines() for a in self.augments]
        return [
            "Blend",
            *_branches([[f"{p:.3g}  {first}", *rest] for p, (first, *rest) in zip(self.props, parts, strict=True)]),
        ]


def _branches(parts: list[list[str]]) -> list[str]:
    """Return the lines of several subtrees, drawn as branches of one tree."""
    drawn = []
    for i, (first, *rest) in enumerate(parts):
        last = i == len(parts) - 1
        drawn.append(("└─ " if last else "├─ ") + first)
        drawn.extend(("   " if last else "│  ") + line for line in rest)
    return drawn
