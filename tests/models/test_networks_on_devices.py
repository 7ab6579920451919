"""Every network gives on every device, in float32, what it gives in float64 on a CPU, gradients included."""

from __future__ import annotations

import copy
import importlib

import pytest
import torch
from lab import DEVICES

HEADS = {"affinity": 3, "mitochondria": 1}
NETWORKS = {
    "rsunet": ((4, 16, 16), {"width": [4, 6, 8]}),
    "rsunet_act": ((4, 16, 16), {"width": [4, 6, 8], "act": "ELU", "group": 2}),
    "rsunet_2d3d": ((4, 16, 16), {"width": [4, 6, 8], "depth2d": 1}),
    "mednext": ((4, 16, 16), {}),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    size, more = NETWORKS[request.param]
    torch.manual_seed(0)
    module = importlib.import_module(f"deepem.models.{request.param}")
    spec = {name: (channels, *size) for name, channels in HEADS.items()}
    return module.create_model(in_spec={"input": (1, *size)}, out_spec=spec, **more), size


def outcome(net, image):
    """The logits, and the gradients of the image and of all parameters."""
    image = image.clone().requires_grad_()
    logits = net(image)
    weights = [torch.linspace(-1, 1, value.numel(), dtype=torch.float64) for value in logits.values()]
    loss = sum((value * w.to(value).view_as(value)).sum() for value, w in zip(logits.values(), weights, strict=True))
    loss.backward()
    gradients = torch.cat([p.grad.flatten().cpu().double() for p in net.parameters() if p.grad is not None])
    return [*logits.values(), image.grad, gradients]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("where", DEVICES)
def test_a_network_is_the_same_on_every_device(network, exact_float32, where, training):
    net, size = network
    exact = copy.deepcopy(net).double().train(training)
    image = torch.rand(2, 1, *size, dtype=torch.float64)
    want = outcome(exact, image)
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        ours = copy.deepcopy(net).train(training).to(where, memory_format=layout)
        got = outcome(ours, image.float().to(where, memory_format=layout))
        for a, b in zip(got, want, strict=True):
            assert float((a.detach().cpu().double() - b.detach()).abs().max() / b.detach().abs().max()) < 1e-3
