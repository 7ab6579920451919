"""Half of the batches keep only the centre of their sections."""

from __future__ import annotations

import numpy as np
import torch

from deepem.data.modifier.crop2x import Modifier


def test_half_of_the_batches_are_cropped_to_their_centre():
    modify = Modifier()
    batch = {"input": torch.arange(2 * 3 * 8 * 12).reshape(1, 2, 3, 8, 12), "mask": torch.ones(1, 1, 3, 8, 12)}
    cropped = 0
    for seed in range(400):
        made = modify(batch, np.random.default_rng(seed))
        if made["input"].shape[-1] == 6:
            cropped += 1
            assert torch.equal(made["input"], batch["input"][..., 2:6, 3:9])
            assert made["mask"].shape == (1, 1, 3, 4, 6)
        else:
            assert all(made[key] is batch[key] for key in batch)
    assert 150 < cropped < 250
    assert batch["input"].shape == (1, 2, 3, 8, 12)
