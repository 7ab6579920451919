"""The U-Net of the CNNectome against figures of the public code: states, outputs, gradients, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deepem.models.cnnectome_unet import (
    AttentionBlockModule,
    CNNectomeUNet,
    CNNectomeUNetConfig,
    CNNectomeUNetModule,
    Upsample,
)
from deepem.utils.errors import InputError

FILE = Path(__file__).resolve().parents[4] / "shared/parity/cnnectome.json"
CASES = json.loads(FILE.read_text()) if FILE.is_file() else {}
NETWORKS = [name for name in CASES if name not in ("_errors", "crop_to_factor")]
ERRORS = CASES.get("_errors", {})

pytestmark = pytest.mark.skipif(not CASES, reason="no recorded figures beside the checkout")


class Attention(nn.Module):
    """The attention block alone, as it was recorded."""

    def __init__(self, case: dict) -> None:
        super().__init__()
        self.att = AttentionBlockModule(4, 3, 5, 3, case["upsample_factor"], batch_norm=case["batch_norm"])
        skip = np.random.RandomState(777).standard_normal(case["x_shape"])
        self.skip = torch.tensor(skip, dtype=torch.float32)

    def forward(self, gate: torch.Tensor) -> torch.Tensor:
        return self.att(gate, self.skip)


def network(case: dict) -> nn.Module:
    if "config_kwargs" in case:
        return CNNectomeUNet(CNNectomeUNetConfig(**case["config_kwargs"])).module()
    return CNNectomeUNetModule(**case["kwargs"]) if "kwargs" in case else Attention(case)


def objective(outputs: list[torch.Tensor]) -> torch.Tensor:
    terms = []
    for h, output in enumerate(outputs):
        weight = np.random.RandomState(4321 + h).standard_normal(tuple(output.shape))
        terms.append((output * torch.tensor(weight, dtype=torch.float32)).sum())
    return torch.stack(terms).sum()


@pytest.mark.parametrize("name", NETWORKS)
def test_state_outputs_and_gradients_are_the_public_ones(cnnectome, name):
    case = cnnectome.cases[name]
    model = network(case)
    assert cnnectome.describe(model) == case["keys"]
    assert sum(p.numel() for p in model.parameters()) == case["n_params"]
    for mode in ("eval", "train"):
        with torch.no_grad():
            cnnectome.fill(model)
        made = model.train(mode == "train")(cnnectome.input(name))
        outputs = made if isinstance(made, list) else [made]
        assert len(outputs) == len(case["output_order"])
        for head, output in zip(case["output_order"], outputs, strict=True):
            assert cnnectome.close(output, cnnectome.output(name, mode, head))
    objective(outputs).backward()
    recorded = case["grad_l2_V"]
    most = max(recorded.values())
    for key, parameter in model.named_parameters():
        assert abs(float(parameter.grad.norm()) - recorded[key]) <= 1e-3 * recorded[key] + 1e-5 * most, key
    state = model.state_dict()
    for key, values in case["running_after_train_V"].items():
        mean_and_norm = float(state[key].mean()), float(state[key].norm())
        np.testing.assert_allclose(mean_and_norm, values, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ERRORS)
def test_sizes_are_taken_and_refused_as_by_the_public_code(name):
    case = ERRORS[name]
    model = CNNectomeUNetModule(**case["kwargs"])
    x = torch.zeros(case["shape"])
    if "error" in case:
        with pytest.raises(InputError) as error:
            model(x)
        assert isinstance(error.value, RuntimeError)
    else:
        with torch.no_grad():
            assert list(model(x).shape) == case["ok"]


def test_maps_are_cropped_to_a_factor_as_in_the_public_code():
    for case in CASES["crop_to_factor"]:
        upsample = Upsample((1, 1), in_channels=1, out_channels=1)
        for size, left in enumerate(case["result"], case["s_from"]):
            x = torch.zeros(1, 1, size, size)
            factor, kernels = (case["factor"],) * 2, [(k, k) for k in case["kernels"]]
            if left < 0:
                with pytest.raises(RuntimeError, match="multiple of"):
                    upsample.crop_to_factor(x, factor, kernels)
            else:
                assert upsample.crop_to_factor(x, factor, kernels).shape[2:] == (left, left)
