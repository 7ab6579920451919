"""Images shine through each other; what they are labelled with stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepem.data.modifier.mixup import MOST, Modifier
from deepem.train import run
from deepem.utils.errors import InputError


def batch(n: int = 3) -> dict[str, torch.Tensor]:
    """Images of one grey value each, 0, 0.5 and 1, with ids that float32 could not hold."""
    grey = torch.linspace(0, 1, n).reshape(-1, 1, 1, 1, 1).expand(n, 1, 2, 4, 4).clone()
    ids = 2**53 + torch.arange(n).reshape(-1, 1, 1, 1, 1).expand(n, 1, 2, 4, 4).clone()
    return {
        "input": grey,
        "affinity": ids,
        "affinity_mask": torch.ones_like(grey),
        "mitochondria": (grey > 0.4).float(),
        "mitochondria_mask": torch.ones_like(grey),
    }


def test_each_image_keeps_more_than_half_and_gets_its_share_of_the_one_before():
    modify, shares, mixed = Modifier(), [], 0
    for seed in range(400):
        given = batch()
        made = modify(given, np.random.default_rng(seed))
        again = modify(given, np.random.default_rng(seed))
        assert torch.equal(made["input"], again["input"])
        assert torch.equal(given["input"], batch()["input"])
        assert all(made[key] is given[key] for key in given if key != "input")
        if made["input"] is given["input"]:
            continue
        mixed += 1
        assert (made["input"] == made["input"][:, :, :1, :1, :1]).all()
        one, two, three = made["input"][:, 0, 0, 0, 0].tolist()
        shares += [one, (0.5 - two) / 0.5, (1 - three) / 0.5]  # of the image before: 1, 0 and 0.5
        assert len({round(share, 4) for share in shares[-3:]}) == 3
    assert mixed / 400 == pytest.approx(0.5, abs=0.08)
    assert np.quantile(shares, [0, 0.25, 0.5, 0.75, 1]) / MOST == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.06)
    assert MOST < 0.5


def test_a_batch_of_one_is_refused():
    with pytest.raises(InputError, match="a batch_size of 2 or more"):
        Modifier()(batch(1), np.random.default_rng(0))


DATASET = """
import numpy as np

data_info = ["a", "b"]
splits = {"train": ["a"], "val": ["b"]}

def load_data(data_dir, data_ids=None, **_):
    rng = np.random.default_rng(0)
    seg = rng.integers(0, 4, (4, 6, 6)).repeat(2, 0).repeat(4, 1).repeat(4, 2)
    img = (seg * 60 + rng.integers(0, 60, seg.shape)).astype(np.uint8)
    return {i: {"img": img, "seg": seg.astype(np.int32), "mit": (seg == 3).astype(np.uint8)} for i in data_ids}
"""
MODEL = """
from torch import nn

class Net(nn.Module):
    def __init__(self, out_spec):
        super().__init__()
        self.out = nn.ModuleDict({name: nn.Conv3d(1, shape[0], 3, padding=1) for name, shape in out_spec.items()})

    def forward(self, x):
        return {name: head(x) for name, head in self.out.items()}

def create_model(*, in_spec, out_spec):
    return Net(out_spec)
"""


def train(folder: Path, name: str, *more: str) -> list[dict[str, Any]]:
    """Train for some iterations from the command line; the rows of its metrics."""
    (folder / "data.py").write_text(DATASET)
    (folder / "net.py").write_text(MODEL)
    words = "--data_dir . --data data.py --model net.py --cpu --aff 1 --mit 0.5 --fov 4,12,12 --amp off --no_eval"
    often = "--num_workers 0 --max_iter 60 --avgs_intv 20 --imgs_intv 1000 --warm_up 0 --lr 0.05"
    run.main([*words.split(), *often.split(), "--exp_name", name, *more])
    lines = (folder / "experiments" / name / "logs" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_training_with_mixed_images_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    mixed = train(tmp_path, "mixed", "--batch_size", "2", "--modifier", "mixup")
    plain = train(tmp_path, "plain", "--batch_size", "2")
    losses = [[row["mitochondria"] for row in rows if "mitochondria" in row] for rows in (mixed, plain)]
    assert losses[0] != losses[1]
    assert losses[0][-1] < 0.9 * losses[0][0]


def test_training_on_batches_of_one_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        train(tmp_path, "one", "--modifier", "mixup")
    assert ended.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == "run.py: error: --modifier mixup: got batches of one sample, wants a batch_size of 2 or more"
