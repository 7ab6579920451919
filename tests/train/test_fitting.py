"""What fits when a step did not: the flags that the error suggests."""

from __future__ import annotations

import math
import re

import pytest
import torch

from deepem.train import run
from deepem.train.fitting import SHARE, UNIT, suggestion

FIXED, PER_VOXEL, PATCH = 5_000_000, 40, (20, 256, 256)


def needed(patch, samples=1):
    """The bytes of a step, as a network with equal cost per voxel takes them."""
    return FIXED + PER_VOXEL * samples * math.prod(patch)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7, 0.95])
def test_the_largest_patch_that_fits_is_named(share):
    room = share * needed(PATCH) / SHARE
    found = suggestion(needed, PATCH, 1, 1, room)
    z, y, x = map(int, re.fullmatch(r"--fov (\d+),(\d+),(\d+)", found).groups())
    assert (z, y) == (20, x)
    assert needed((z, y, x)) <= SHARE * room < needed((z, y + UNIT, x + UNIT))


@pytest.mark.parametrize(("samples", "accumulate", "fits", "told"), [
    (8, 1, 4, "--accumulate 2"), (8, 2, 2, "--accumulate 4"), (6, 1, 1, "--accumulate 6"), (6, 1, 5, "--accumulate 2"),
])  # fmt: skip
def test_a_batch_is_divided_before_its_patches_shrink(samples, accumulate, fits, told):
    room = (needed(PATCH, fits) + PER_VOXEL * math.prod(PATCH) / 2) / SHARE
    assert suggestion(needed, PATCH, samples, accumulate, room) == told


def test_a_batch_of_patches_that_do_not_fit_alone():
    found = suggestion(needed, PATCH, 4, 1, 0.5 * needed(PATCH) / SHARE)
    assert re.fullmatch(r"--fov 20,\d+,\d+ --accumulate 4", found)


def test_nothing_is_suggested_where_nothing_fits():
    assert suggestion(needed, PATCH, 1, 1, FIXED / 2) is None
    assert suggestion(lambda patch: 1, PATCH, 1, 1, 1e12) is None  # memory that does not grow tells nothing
    assert suggestion(needed, (20, 16, 16), 1, 1, FIXED) is None


@pytest.mark.gpu
def test_out_of_memory_is_told_with_what_fits(tmp_path, monkeypatch, capsys):
    """In one line; and it does fit."""
    monkeypatch.chdir(tmp_path)
    words = "--data synthetic --synth_size 24,640,640 --aff 1 --amp off --max_iter 2 --eval_iter 1 --num_workers 0"
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((4 << 30) / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(SystemExit) as caught:
            run.main([*words.split(), "--exp_name", "run", "--fov", "20,512,512"])
        told = capsys.readouterr().err
        assert caught.value.code == 2
        assert "Traceback" not in told
        assert told.splitlines()[-1].startswith("run.py: error: --fov, --batch_size: got 20,512,512 and 1, too much")
        (fits,) = re.findall(r"wants (--fov 20,\d+,\d+) \(should fit\)", told.splitlines()[-1])
        run.main([*words.split(), "--exp_name", "other", *fits.split()])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
