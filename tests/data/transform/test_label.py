"""Connected components of instance ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.transform.encoded import rng
from lab import same_partition
from scipy.ndimage import label

from deepem.data.transform import Label, Spec


def slow(ids: Any) -> Any:
    """Components of one id at a time."""
    out, count = np.zeros(ids.shape, np.int64), 0
    for value in np.unique(ids[ids != 0]):
        parts, n = label(ids == value, np.ones((3, 3, 3)))
        out[parts > 0] = parts[parts > 0] + count
        count += n
    return out


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("seed", range(5))
def test_pieces_get_ids_of_their_own(dtype: Any, seed: int) -> None:
    big = np.iinfo(dtype).max - 5
    ids = rng(seed).choice([0, 0, 0, 0, 7, big, big + 1], (6, 12, 12)).astype(dtype)
    spec = Spec({"img": ids.shape, "seg": ids.shape, "mit": ids.shape}, ("img",), ("seg",))
    sample = {
        "img": np.ones((1, *ids.shape), np.float32),
        "seg": ids[None].copy(),
        "mit": (ids[None] > 0).astype(np.uint8),
    }
    out = Label().prepare(spec, rng())[1](dict(sample))
    assert out["seg"].dtype == dtype
    assert same_partition(out["seg"][0], slow(ids))
    assert np.array_equal(out["seg"] == 0, ids[None] == 0)
    assert out["mit"] is sample["mit"]
    assert out["img"] is sample["img"]


def test_ids_may_be_kept_beside_the_pieces() -> None:
    ids = np.zeros((1, 3, 4, 5), np.int32)
    ids[..., 0] = ids[..., 4] = 9
    spec = Spec({"seg": (3, 4, 5)}, (), ("seg",))
    out = Label(vec=True).prepare(spec, rng())[1]({"seg": ids.copy()})
    assert np.array_equal(out["seg"], ids)
    assert set(np.unique(out["seg_split"])) == {0, 1, 2}
