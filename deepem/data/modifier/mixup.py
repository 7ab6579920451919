"""Blend images of a batch faintly into each other, like a double exposure; labels stay unchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from deepem.utils.errors import InputError

MOST = 0.4
"""The largest share of another image in the blend; below one half, so that it is clear whose labels apply."""

PROBABILITY = 0.5


class Modifier:
    """With probability 1/2, blend each image of a batch with the image of the previous sample in the batch::

        image = (1 - share) image + share other,    share drawn from [0, MOST) for each sample

    Targets and masks remain those of the stronger image. The original Mixup (H. Zhang et al., ICLR 2018) mixes targets
    too. Here this is impossible: affinities come from instance ids, which cannot be averaged, and losses may depend on
    exact class values (margins, class balancing). So the network learns to ignore a faint second image.
    """

    def __call__(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Return the batch with blended images, (N, C, Z, Y, X) in [0, 1]; the given images are not modified.

        Raises:
            InputError: The batch has only one sample, even if it is not drawn for blending.
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
            pairs = zip(image, image.roll(1, 0), shares, strict=True)
            # plain numbers as shares: a tensor of them would be copied, and the device would wait for it
            mixed[name] = torch.stack([one.lerp(other, float(share)) for one, other, share in pairs])
        return mixed
