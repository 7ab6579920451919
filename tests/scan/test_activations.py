"""From logits to probabilities, by kind of task, alone and in a scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepem.scan.kinds import KINDS, activations, edges_by_output
from deepem.tasks import NEAREST_EDGES, choose
from deepem.test.forward import predict

ROWS = choose(["aff", "mit", "sem"], channels={"sem": 3})
LOGITS = torch.from_numpy(np.random.default_rng(0).normal(0, 4, (2, 3, 2, 4, 5)).astype(np.float32))


def reference(kind: str, logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits.astype(np.float64))
    return exp / exp.sum(1, keepdims=True) if kind == "semantic" else exp / (1 + exp)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.activate is not None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_probabilities(kind, dtype, temperature):
    logits, out = LOGITS.to(dtype), torch.empty_like(LOGITS)
    kept = logits.clone()
    found = KINDS[kind].activate(logits, temperature, out)
    assert found.data_ptr() == out.data_ptr()
    assert torch.equal(logits, kept)
    np.testing.assert_allclose(found, reference(kind, logits.float().numpy() / temperature), atol=2e-6)
    if temperature == 1 and dtype == torch.float32:
        np.testing.assert_allclose(KINDS[kind].probabilities(logits), found, atol=1e-6)


def test_each_output_has_that_of_its_row():
    assert {name: made.__name__ for name, made in activations(ROWS).items()} == {
        "affinity": "sigmoid",
        "mitochondria": "sigmoid",
        "semantic": "softmax",
    }
    assert edges_by_output(ROWS) == {"affinity": NEAREST_EDGES}


class Net(torch.nn.Module):
    """Logits that depend on the voxel and on which way up the patch is."""

    def forward(self, x):
        along = torch.linspace(-2, 2, x.shape[-1]).expand_as(x)
        return {"semantic": torch.cat([4 * x, along * 3, 1 - x], 1), "mitochondria": along + x}


def test_flips_average_probabilities_not_logits():
    image = np.random.default_rng(1).random((4, 8, 8), np.float32)
    patch = {"patch_size": (4, 8, 8), "overlap": (0, 0, 0)}
    net, x = Net(), torch.from_numpy(image)[None, None]
    mean = {}
    for flips in ([], [-1]):
        for name, logits in net(x.flip(flips)).items():
            p = logits.softmax(1) if name == "semantic" else logits.sigmoid()
            mean[name] = mean.get(name, 0) + p.flip(flips)[0] / 2
    found = predict(net, image, **patch, test_aug=[0, 2])
    for name in mean:
        np.testing.assert_allclose(found[name], mean[name], atol=1e-6)
    np.testing.assert_allclose(found["semantic"].sum(0), 1, atol=1e-6)


def test_overlapping_patches_still_sum_to_one():
    image = np.random.default_rng(1).random((6, 20, 20), np.float32)
    found = predict(Net(), image, patch_size=(4, 8, 8), temperature=2)
    np.testing.assert_allclose(found["semantic"].sum(0), 1, atol=1e-5)


def test_a_table_of_its_own():
    rows = [next(row for row in ROWS if row.flag == "mit"), *()]
    image = np.random.default_rng(1).random((4, 8, 8), np.float32)
    found = predict(Net(), image, patch_size=(4, 8, 8), tasks=rows)
    np.testing.assert_allclose(
        found["semantic"], Net()(torch.from_numpy(image)[None, None])["semantic"][0].sigmoid(), atol=1e-6
    )
