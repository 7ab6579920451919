"""Samples of a batch shine faintly through each other, as a photograph that was exposed twice; labels stay."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepem.utils.errors import InputError

MOST = 0.4
"""The largest share of another sample in an image: less than half, so that it is clear which labels hold."""

PROBABILITY = 0.5


class Modifier:
    """With a chance of one half, mixes each image of a batch with that of the sample before it in the batch::

        image = (1 - share) image + share other,    share drawn from [0, MOST) for each sample

    Targets and masks stay those of the stronger image. The Mixup of classifiers (H. Zhang et al., ICLR 2018) mixes
    targets too; but affinities come from instance ids, which have no mean, and the loss may tell classes apart by their
    value (margins, class balancing). So this one asks the network to see through a faint second image, the same for all
    tasks, and does not smooth its targets.
    """

    def __call__(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The batch with other images, (N, C, Z, Y, X) in [0, 1]; the given ones are not written into.

        Raises:
            InputError: a batch of one sample, drawn for mixing or not.
        """
        outputs = {name.removesuffix("_mask") for name in batch if name.endswith("_mask")}  # each target has a mask
        images = [name for name in batch if name.removesuffix("_mask") not in outputs]
        if any(len(batch[name]) < 2 for name in images):
            raise InputError("modifier mixup", "batches of one sample", "a batch_size of 2 or more")
        if rng.random() >= PROBABILITY:
            return batch
        mixed = dict(batch)
        shares = MOST * rng.random(max(len(batch[name]) for name in images))
        for name in images:
            image = batch[name]
            share = image.new_tensor(shares).reshape(-1, 1, 1, 1, 1)
            mixed[name] = image.lerp(image.roll(1, 0), share)
        return mixed
