"""What plug-ins give back is looked at once, before anything is written: one line that says what it must be."""

from __future__ import annotations

import pytest

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Conv3d(1, shape[0], 3, padding=1) for name, shape in heads.items()})

    def forward(self, x):
        heads = {name: head(x) for name, head in self.heads.items()}
        RETURN

def create_model(*, in_spec, out_spec):
    return Net(out_spec)
"""
SAMPLER = """
import sys
import numpy as np
from deepem.data.sampler.basic import get_spec

class Sampler:
    def __init__(self, data, spec, is_train, aug, prob):
        self.spec = spec

    def __call__(self, rng):
        out = {name: np.zeros(shape, np.float32) for name, shape in self.spec.items()}
        RETURN
"""
AUGMENT = """
class Own:
    def prepare(self, spec, rng):
        RETURN

def get_augmentation(is_train):
    return Own()
"""
MODIFIER = """
class Modifier:
    def __call__(self, batch, rng):
        RETURN
"""

CASES = [
    ("model", "def create_model(*, in_spec, out_spec): return None", "None from create_model, wants a torch.nn.Module"),
    ("model", NET.replace("return Net(out_spec)", "return Net"), "a class from create_model"),
    *(
        ("model", NET.replace("RETURN", f"return {value}"), told)
        for value, told in {
            "x": "a tensor of torch.float32 (1, 1, 4, 12, 12) from its forward, wants a dict of affinity, mitochondria",
            "None": "None from its forward",
            "{'affinity': heads['affinity']}": "a dict of affinity from its forward, wants the head mitochondria in it",
            "{name: value[..., :-1] for name, value in heads.items()}": "(1, 3, 4, 12, 11) from its forward",
            "{name: torch.cat([value] * 2, 1) for name, value in heads.items()}": "(1, 6, 4, 12, 12) from its forward",
            "{name: value.int() for name, value in heads.items()}": "affinity: a tensor of torch.int32",
            "{name: value.detach() for name, value in heads.items()}": "affinity: a tensor without a gradient",
            "{name: value.detach().numpy() for name, value in heads.items()}": "affinity: a ndarray from its forward",
        }.items()
    ),
    *(
        ("sampler", SAMPLER.replace("RETURN", does), told)
        for does, told in {
            "return None": "got None, wants a dict of arrays (C, Z, Y, X) by key",
            "yield out": "got a generator",
            "sys.exit(0)": "got sys.exit(0), wants a sample",
            "del out['affinity']; return out": "wants affinity in it",
            "del out['affinity_mask']; return out": "wants affinity_mask in it",
            "out['input'] = out['input'][:, :3]; return out": "input: got a tensor of torch.float32 (1, 1, 3, 12, 12)",
            "out['affinity'] = out['affinity'][0]; return out": "affinity: got a tensor of torch.float32 (1, 4, ",
            "out['input'] = out['input'].astype(str); return out": "input (train sample 0 of seed 0): got an array of ",
            "out['input'] = out['input'].astype('u2'); return out": "input: got a tensor of torch.uint16",
        }.items()
    ),
    ("augment", "def get_augmentation(is_train): return 5", "a int from get_augmentation, wants an augmentation"),
    *(
        ("augment", AUGMENT.replace("RETURN", does), told)
        for does, told in {
            "return None": "got None, wants (spec, apply) from prepare",
            "return spec, lambda sample: None": "got None, wants a dict of arrays",
            "return spec, lambda sample: {'img': sample['img']}": "got a dict of img, wants seg in it",
            "return spec, lambda s: {k: v[:, :2] for k, v in s.items()}": "got an array of uint8 (1, 2, 12, 12)",
        }.items()
    ),
    ("modifier", "class Modifier: pass", "a Modifier that cannot be called"),
    *(
        ("modifier", MODIFIER.replace("RETURN", does), told)
        for does, told in {
            "return 5": "modifier own.py: got a int, wants a dict of input, affinity, affinity_mask",
            "return {}": "modifier own.py: got a dict of nothing, wants input in it",
            "return {name: value.numpy() for name, value in batch.items()}": "input: got a ndarray, wants a tensor",
        }.items()
    ),
]


@pytest.mark.parametrize(("kind", "text", "told"), CASES, ids=lambda value: value[-60:].strip())
def test_a_plug_in_that_gives_something_else_is_bad_input(lab, capsys, kind, text, told):
    (lab.folder / "own.py").write_text(text)
    lab.base = [word for word in lab.base if word != "--grayscale"]
    assert (
        lab.fails(
            "run", f"--{kind}", "own.py", "--max_iter", 1, *([] if kind == "augment" else ["--augment", "no_aug"])
        )
        == 2
    )
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"run.py: error: --{kind}")
    assert told in line
    assert not (lab.folder / "experiments").exists()


def test_in_a_worker_too(lab, capsys):
    (lab.folder / "own.py").write_text(SAMPLER.replace("RETURN", "sys.exit(0)"))
    lab.base = [word for word in lab.base if word != "--grayscale"]
    assert lab.fails("run", "--sampler", "own.py", "--augment", "no_aug", "--num_workers", 1, "--max_iter", 1) == 2
    assert "got sys.exit(0), wants a sample" in capsys.readouterr().err


def test_batch_norm_over_a_single_value_is_bad_input(lab, capsys):
    pooled = NET.replace(
        "RETURN", "return {n: v * self.norm(v.mean((2, 3, 4)))[..., None, None, None] for n, v in heads.items()}"
    )
    pooled = pooled.replace("        self.heads", "        self.norm = nn.LazyBatchNorm1d()\n        self.heads", 1)
    pooled = pooled.replace("nn.LazyBatchNorm1d()", "nn.BatchNorm1d(3)").replace(
        "for n, v in heads.items()}", "for n, v in heads.items() if n == 'affinity'}"
    )
    (lab.folder / "own.py").write_text(pooled)
    assert lab.fails("run", "--model", "own.py", "--max_iter", 1) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "--fov, --batch_size: got Expected more than 1 value per channel when training, wants more values" in line
    assert not (lab.folder / "experiments").exists()


LOADS = """
def load_data(data_dir, data_ids=None, **_):
    ones = np.ones((4, 12, 12), int)
    return {i: {'img': %s, 'seg': ones, 'mit': ones} for i in data_ids}
"""


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("splits = ['a', 'b']", "got splits of type list, wants splits = {'train': [...], 'val': [...]}"),
        ("splits = None", "got splits of type NoneType"),
        ("splits = {'train': 'a'}", "got splits['train'] of type str"),
        ("splits = {'train': 5}", "got splits['train'] of type int"),
        ("data_info = [['a']]", "got an id of type list, wants ids that are text"),
        ("load_data = 5", "got load_data that cannot be called, wants load_data("),
        ("tasks = 5", "tasks: got a int, wants (Task(...),), rows of tasks"),
        (LOADS % "[[1], [2, 3]]", "a img: got a ragged list"),
        (LOADS % "np.full((4, 12, 12), None)", "a img: got an array of objects"),
    ],
    ids=lambda value: value[-40:],
)  # fmt: skip
def test_a_dataset_that_gives_something_else_is_bad_input(lab, capsys, more, told):
    lab.module.write_text(f"{lab.module.read_text()}\n{more}\n")
    assert lab.fails("run", "--max_iter", 1) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]
    assert not (lab.folder / "experiments").exists()
