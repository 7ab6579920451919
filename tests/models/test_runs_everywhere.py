"""Every network compiled, exported, traced, in bfloat16 and in channels-last layout gives the eager figures."""

from __future__ import annotations

import warnings

import pytest
import torch

from deepem.models import emvision
from deepem.models.cnnectome_unet import CNNectomeUNetModule
from deepem.models.mednext import MedNeXt
from deepem.models.rsunet_act import create_model

NETWORKS = {
    "RSUNet": (lambda: emvision.RSUNet([4, 6, 8]), (4, 16, 16)),
    "isoRSUNet": (lambda: emvision.isoRSUNet([4, 6, 8]), (4, 16, 16)),
    "rsunet_act PReLU": (lambda: emvision.rsunet_act([4, 6, 8], "PReLU"), (4, 16, 16)),
    "rsunet_act_gn ELU": (lambda: emvision.rsunet_act_gn([4, 6, 8], 2, "ELU"), (4, 16, 16)),
    "rsunet_act_in": (lambda: emvision.rsunet_act_in([4, 6, 8]), (4, 16, 16)),
    "rsunet_act_nn": (lambda: emvision.rsunet_act_nn([4, 6, 8]), (4, 16, 16)),
    "rsunet_2d3d": (lambda: emvision.rsunet_2d3d([4, 6, 8], 1), (4, 16, 16)),
    "rsunet_v3": (lambda: emvision.rsunet_v3([4, 6, 8]), (4, 16, 16)),
    "dynamic_rsunet": (lambda: emvision.dynamic_rsunet([4, 6, 8], 2), (4, 16, 16)),
    "vrunet": (lambda: emvision.vrunet([4, 6]), (16, 28, 28)),
    "RUNet": (lambda: emvision.RUNet([4, 6, 8]), (4, 16, 16)),
    "DTU2": (lambda: emvision.DTU2([4, 6], [(1, 3, 3), (3, 3, 3)], [(1, 3, 3)]), (8, 20, 23)),
    "options": (lambda: emvision.RSUNet([4, 6], squeeze_excitation=True, attention_gates=True), (4, 16, 16)),
    "MedNeXt": (lambda: MedNeXt([4, 6, 8], [2, 2, 2], [3, 3, 3]), (4, 16, 16)),
    "CNNectomeUNet": (lambda: CNNectomeUNetModule(4, 4, 2, [(1, 2, 2)], use_attention=True), (13, 28, 28)),
}
pytestmark = pytest.mark.slow


@pytest.fixture(params=NETWORKS)
def case(request):
    make, size = NETWORKS[request.param]
    return make().eval(), torch.randn(2, 4, *size)


def off(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((got.detach().float() - want.detach()).abs().max() / want.detach().abs().max())


def test_compiled(case):
    net, x = case
    torch._dynamo.reset()
    with torch.no_grad():
        assert off(torch.compile(net, fullgraph=True)(x), net(x)) < 1e-5


def test_compiled_training_step(case):
    net, x = case
    torch._dynamo.reset()
    gradients = []
    state = {key: value.clone() for key, value in net.state_dict().items()}
    for run in (net, torch.compile(net, fullgraph=True)):
        net.load_state_dict(state)
        net.train().zero_grad()
        run(x).square().mean().backward()
        gradients.append([p.grad.clone() for p in net.parameters() if p.grad is not None])
    scale = max(float(g.abs().max()) for g in gradients[0])
    assert max(float((a - b).abs().max()) for a, b in zip(*gradients, strict=True)) < 1e-3 * scale


def test_exported(case):
    net, x = case
    program = torch.export.export(net, (x,))
    with torch.no_grad():
        assert off(program.module()(x), net(x)) < 1e-5


def test_traced(case):
    net, x = case
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every size that it takes for a constant
        assert off(torch.jit.trace(net, x, check_trace=False)(x), net(x)) < 1e-5


def test_bfloat16_autocast(case):
    net, x = case
    with torch.no_grad():
        want = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            got = net(x)
    # bfloat16 keeps 8 bits, half a percent; norms over few voxels, deep in these small nets, amplify it.
    assert off(got, want) < 0.15
    assert float((got.float() - want).square().mean().sqrt() / want.square().mean().sqrt()) < 0.05


def test_bfloat16_training_reaches_every_parameter(case):
    net, x = case
    with torch.autocast("cpu", torch.bfloat16):
        loss = net.train()(x).float().square().mean()
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert any(p.grad is not None and p.grad.any() for p in net.parameters())


def test_channels_last(case):
    net, x = case
    with torch.no_grad():
        want = net(x)
        net.to(memory_format=torch.channels_last_3d)
        got = net(x.to(memory_format=torch.channels_last_3d))
    assert off(got, want) < 1e-5


def test_whole_model_with_crop_supervision_and_recomputing_compiles():
    torch._dynamo.reset()
    specs = {"in_spec": {"input": (1, 4, 8, 8)}, "out_spec": {"affinity": (3, 4, 8, 8), "mitochondria": (1, 4, 8, 8)}}
    model = create_model(**specs, width=[2, 3, 4], cropsz=(1, 0.5, 0.5), deep_supervision=[0.5], checkpointing=True)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    x = torch.rand(1, 1, 4, 8, 8)
    want = model(x)
    statistics = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict(state)
    got = torch.compile(model)(x)
    assert list(got) == list(want)
    assert all(off(got[name], want[name]) < 1e-4 for name in want)
    sum(y.square().mean() for y in got.values()).backward()
    assert all(torch.allclose(value, statistics[key], atol=1e-5) for key, value in model.state_dict().items())
