"""From file to file, every device predicts what `predict` gives on a CPU; too little memory is told in one line."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from lab import DEVICES, FOV

from deepem.test.forward import predict

HOW = {
    "plain": ((), {}),
    "flips": (("--test_aug", "0", "5", "10"), {"test_aug": [0, 5, 10]}),
    "batches": (("--batch_size", "3", "--overlap", "1,4,6"), {"batch_size": 3, "overlap": (1, 4, 6)}),
}


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("how", HOW)
def test_files_are_the_same_on_every_device(lab, exact_float32, where, how):
    words, same = HOW[how]
    image = lab.image("a", (9, 37, 29))
    want = predict(lab.net, image, patch_size=FOV, device="cpu", **same)
    lab.forward_on(where, "--data_dir", "data", "--test_ids", "a", *words)
    for name, values in want.items():
        np.testing.assert_allclose(lab.output(f"a_{name}_7"), values, atol=1e-5)


@pytest.mark.gpu
def test_out_of_memory_is_told_with_what_may_fit(lab, capsys):
    lab.image("large", (64, 512, 512))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((1 << 29) / torch.cuda.get_device_properties(0).total_memory)
    try:
        with pytest.raises(SystemExit) as caught:
            lab.forward_on("cuda", "--data_dir", "data", "--test_ids", "large", "--inputsz", "64,512,512")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    told = capsys.readouterr().err
    assert caught.value.code == 2
    assert "Traceback" not in told
    last = told.splitlines()[-1]
    assert last.startswith("forward.py: error: --max_memory: got ")
    assert re.search(r"wants --batch_size 1 and --inputsz of about 64,\d+,\d+", last)
    assert lab.files() == []
