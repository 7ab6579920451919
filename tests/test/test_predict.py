"""`predict` on images in memory: recorded figures, sizes, and any module."""

import json
import sys

import numpy as np
import pytest
import torch
from lab import DEVICES
from torch import nn

from deepem.scan import inference
from deepem.scan.memory import cut
from deepem.test.forward import predict
from deepem.utils.errors import InputError


class Identity(nn.Module):
    """Logits whose sigmoid is the image; no parameters."""

    def forward(self, patches):
        return {"image": torch.logit(patches, 1e-6)}


def image_of(*size):
    return np.random.default_rng(0).random(size).astype(np.float32) * 0.98 + 0.01


def test_stitched_outputs_are_as_recorded(shared):
    arrays = np.load(shared / "parity/inference.npz")
    weight, bias = (torch.from_numpy(arrays[f"scan/conv_{name}"]) for name in ("weight", "bias"))

    def model(patches):
        logits = nn.functional.conv3d(patches, weight, bias, padding=1)
        return {"affinity": logits[:, :3], "mitochondria": logits[:, 3:]}

    for name, case in json.loads((shared / "parity/inference.json").read_text())["scan"].items():
        p = case["params"]
        image = np.random.RandomState(99).random_sample(p["volshape"]).astype(np.float32)
        found = predict(
            model, image, patch_size=p["fov"], output_size=p.get("outputsz"), overlap=p["overlap"], batch_size=2
        )
        assert list(found) == ["affinity", "mitochondria"]
        for head, value in found.items():
            np.testing.assert_allclose(value, arrays[f"scan/{name}/{head}"], atol=1e-5)


@pytest.mark.parametrize("blend", ["bump", "mean", "precomputed", "none", ""])
@pytest.mark.parametrize("bump", ["zung", "wu", "wu_no_crust"])
def test_an_identity_network_gives_its_input_back(blend, bump):
    image = image_of(5, 19, 23)
    found = predict(Identity(), image, patch_size=(4, 8, 6), overlap=(1, 0.3, 2), blend=blend, bump=bump)
    assert found["image"].shape == (1, 5, 19, 23)
    assert found["image"].dtype == np.float32
    np.testing.assert_allclose(found["image"][0], image, atol=1e-6)


def test_a_smaller_output_leaves_its_smaller_half_in_front():
    image = image_of(8, 20, 21)
    found = predict(Identity(), image, patch_size=(6, 16, 16), output_size=(4, 11, 8))["image"][0]
    np.testing.assert_allclose(found, image[1:-1, 2:-3, 4:-4], atol=1e-6)


def test_a_valid_network_gives_the_output_patch_itself():
    image = image_of(6, 20, 20)
    conv = nn.Conv3d(1, 1, 3)
    found = predict(lambda p: {"a": conv(p)}, image, patch_size=(5, 9, 9), output_size=(3, 7, 7), overlap=(1, 2, 3))
    with torch.no_grad():
        wanted = torch.sigmoid(conv(torch.from_numpy(image)[None, None]))[0]
    np.testing.assert_allclose(found["a"], wanted, atol=1e-6)


def test_bytes_floats_and_a_channel_axis():
    image = np.random.default_rng(0).integers(3, 250, (4, 8, 8), np.uint8)
    sizes = {"patch_size": (2, 4, 4)}
    whole = predict(Identity(), image, **sizes)["image"]
    np.testing.assert_allclose(whole[0], image / 255, atol=1e-6)
    np.testing.assert_array_equal(predict(Identity(), image[None], **sizes)["image"], whole)
    np.testing.assert_allclose(predict(Identity(), image / 255.0, **sizes)["image"], whole, atol=1e-6)
    two = np.stack([image, image[::-1]])
    np.testing.assert_allclose(predict(Identity(), two, **sizes)["image"], two / 255, atol=1e-6)


def test_heads_may_be_views_of_one_tensor_and_patches_two_voxels_wide():
    def model(patches):
        logits = torch.logit(patches)
        return {"a": logits, "b": logits, "both": logits.expand(-1, 2, -1, -1, -1)}

    image = image_of(3, 5, 4)
    found = predict(model, image, patch_size=(2, 2, 2))
    for value in found.values():
        np.testing.assert_allclose(value[0], image, atol=1e-6)


def test_temperature_divides_logits_and_never_sharpens():
    image = image_of(4, 8, 8)
    logits = np.log(image / (1 - image))
    sizes = {"patch_size": (4, 4, 4)}
    np.testing.assert_allclose(
        predict(Identity(), image, temperature=2.0, **sizes)["image"][0], 1 / (1 + np.exp(-logits / 2)), atol=1e-6
    )
    np.testing.assert_allclose(predict(Identity(), image, temperature=0.5, **sizes)["image"][0], image, atol=1e-6)


def test_a_module_runs_in_eval_mode_and_keeps_its_modes():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.frozen = nn.BatchNorm3d(1), nn.BatchNorm3d(1)
            self.modes = set()

        def forward(self, patches):
            self.modes.add((self.training, self.norm.training))
            return {"a": self.frozen(self.norm(patches))}

    net = Net()
    net.frozen.eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    predict(net, image_of(4, 8, 8), patch_size=(4, 4, 4))
    assert net.modes == {(False, False)}
    assert (net.training, net.norm.training, net.frozen.training) == (True, True, False)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_mixed_precision_gives_float32_close_by():
    net = nn.Conv3d(1, 3, 3, padding=1)
    image = image_of(4, 16, 16)
    exact, mixed = (
        predict(lambda p: {"a": net(p)}, image, patch_size=(4, 8, 8), amp=amp)["a"] for amp in (False, True)
    )
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(mixed, exact, atol=0.02)


def test_the_image_is_left_as_it_was():
    image = image_of(4, 8, 8)
    before = image.copy()
    predict(lambda p: {"a": p.mul_(0)}, image, patch_size=(4, 4, 4))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("image", "options", "says"),
    [
        (np.zeros((4, 7, 8), np.float32), {}, "at least one patch"),
        (np.zeros((7, 8), np.float32), {}, "shape"),
        (np.zeros((8, 8, 8), np.int64), {}, "int64"),
        (np.full((8, 8, 8), np.nan), {}, "no numbers"),
        (np.zeros((8, 8, 8), np.uint8), {"overlap": (4, 8, 8)}, "overlap"),
        (np.zeros((8, 8, 8), np.uint8), {"stride": (4, 9, 8)}, "stride"),
        (np.zeros((8, 8, 8), np.uint8), {"overlap": (float("nan"), 0, 0)}, "overlap"),
        (np.zeros((8, 8, 8), np.uint8), {"batch_size": 0}, "batch_size: got 0, wants 1 or more"),
        (np.zeros((8, 8, 8), np.uint8), {"batch_size": -1}, "batch_size: got -1, wants 1 or more"),
        (np.zeros((8, 8, 8), np.uint8), {"output_size": (4, 9, 8)}, "output size"),
        (np.zeros((8, 8, 8), np.uint8), {"output_size": (2, 7, 8)}, None),
        (np.zeros((8, 8, 8), np.uint8), {"blend": "gauss"}, "gauss"),
        *(
            (np.zeros((8, 8, 8), np.uint8), options, says)
            for options, says in (
                ({"patch_size": (8, 8)}, r"patch_size: got \(8, 8\), wants three whole numbers z,y,x of 1 or more"),
                ({"patch_size": (0, 8, 8)}, r"patch_size: got \(0, 8, 8\), wants three whole numbers"),
                ({"patch_size": (4.5, 8, 8)}, "patch_size: got .4.5, 8, 8., wants three whole numbers"),
                ({"patch_size": 8}, "patch_size: got 8, wants three whole numbers"),
                ({"patch_size": "big"}, "patch_size: got big, wants three whole numbers"),
                ({"output_size": (4, 8)}, "output_size: got .4, 8., wants three whole numbers"),
                ({"output_size": np.array([4, 8, 8, 8])}, "output_size: got .*wants three whole numbers"),
                ({"temperature": float("nan")}, "temperature: got nan, wants a finite number"),
                ({"temperature": "hot"}, "temperature: got hot, wants a finite number"),
                ({"test_aug": 3}, "test_aug: got 3, wants a list of numbers from 0 to 15"),
                ({"test_aug": "all"}, "test_aug: got all, wants a list"),
                ({"test_aug": [16]}, "test_aug: got 16, wants numbers from 0 to 15"),
                ({"edges": [(0, 1)]}, "edges: got .*, wants edges .z, y, x. of three whole numbers each"),
                ({"edges": {"image": [(0, 1)]}}, "edges of image: got"),
                ({"mask_edges": [(0, 0.5, 0)]}, "mask_edges: got .*, wants edges"),
                ({"device": "gpu"}, "device: got gpu, wants a device of torch"),
            )
        ),
    ],
)
def test_bad_input_is_named(image, options, says):
    if says is None:
        assert predict(Identity(), image, patch_size=(4, 8, 8), **options)["image"].shape == (1, 6, 7, 8)
        return
    with pytest.raises(InputError, match=says):
        predict(Identity(), image, **{"patch_size": (4, 8, 8), **options})


def test_sizes_and_edges_may_be_arrays():
    def model(patches):
        return {"affinity": torch.logit(patches, 1e-6).expand(-1, 3, -1, -1, -1)}

    image, edges = image_of(6, 20, 21), [(0, 0, 2), (0, 3, 0), (1, 0, 0)]
    sizes = {"patch_size": (4, 8, 8), "output_size": (4, 7, 6), "overlap": (1, 2, 3)}
    for own in (edges, {"affinity": edges}):
        arrays = {name: np.array(edges) for name in own} if isinstance(own, dict) else np.array(edges)
        options = {"test_aug": [0, 3]}
        wanted = predict(model, image, **sizes, **options, edges=own, mask_edges=own)["affinity"]
        sizes_too = {name: np.array(size) for name, size in sizes.items()}
        options = {"test_aug": np.array([0, 3]), "edges": arrays, "mask_edges": arrays}
        np.testing.assert_array_equal(predict(model, image, **sizes_too, **options)["affinity"], wanted)


def leave():
    sys.exit(0)


@pytest.mark.parametrize(
    ("gives", "told"),
    [
        (lambda x: x, "model: got an output of type Tensor, wants a dict of name -> logits"),
        (lambda x: None, "model: got an output of type NoneType"),
        (lambda x: {}, "model: got a dict of nothing"),
        (lambda x: {1: x}, "model: got a dict of 1"),
        (lambda x: leave(), r"model: got sys\.exit\(0\), wants a result"),
        (lambda x: {"a": x[..., :6]}, "model output a: got size"),
        (
            lambda x: {"a": x[0]},
            r"model output a: got a tensor \(1, 4, 8, 8\), wants a tensor of floats \(1, C, Z, Y, X\)",
        ),
        (lambda x: {"a": torch.cat([x, x])}, r"model output a: got a tensor \(2, 1, 4, 8, 8\)"),
        (lambda x: {"a": x.numpy()}, "model output a: got a ndarray, wants a tensor of floats"),
        (lambda x: {"a": x.int()}, r"model output a: got a tensor of torch\.int32"),
        (lambda x: {"a": x.to(torch.complex64)}, r"model output a: got a tensor of torch\.complex64"),
        (
            lambda x: {"a": x * torch.nan},
            "model output a: got values that are no numbers within .*, wants finite logits",
        ),
    ],
)
def test_a_model_that_gives_something_else_is_named(gives, told):
    with pytest.raises(InputError, match=told):
        predict(gives, np.zeros((4, 8, 8), np.uint8), patch_size=(4, 8, 8))


def test_pieces_that_fit_a_device_make_the_same_whole(monkeypatch):
    image = image_of(9, 30, 33)
    options = {"patch_size": (4, 8, 8), "output_size": (4, 7, 6), "test_aug": [0]}
    whole = predict(Identity(), image, **options)["image"]
    counts = []

    def pieces(run, grid, cost, device):
        found = inference.cut(run, grid, grid.covered, cost, 60_000)
        counts.append(len(found.boxes))
        return found.boxes, found.depth, found.patches

    monkeypatch.setattr(inference, "_pieces", pieces)
    monkeypatch.setattr(inference, "trial", lambda call, device: call() or 0)
    np.testing.assert_array_equal(predict(Identity(), image, **options)["image"], whole)
    assert counts[0] > 1


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("how", [{}, {"test_aug": [0, 3, 8]}, {"batch_size": 3, "output_size": (4, 12, 12)}])
def test_stitching_is_the_same_on_every_device(monkeypatch, exact_float32, where, how):
    """In one piece and, on a GPU, in the pieces that fit where memory is short."""
    torch.manual_seed(0)
    net = nn.Conv3d(1, 3, 3, padding=1)

    def model(patches):
        return {"affinity": net(patches)}

    image = image_of(13, 70, 66)
    expected = predict(model, image, patch_size=(6, 16, 16), device="cpu", **how)["affinity"]
    net.to(where)
    whole = predict(model, image, patch_size=(6, 16, 16), device=where, **how)["affinity"]
    np.testing.assert_allclose(whole, expected, atol=1e-5)
    cuts = []
    monkeypatch.setattr(inference, "trial", lambda call, device: [call(), 0][1])
    monkeypatch.setattr(inference, "available", lambda device: 800_000)
    monkeypatch.setattr(inference, "cut", lambda *args: cuts.append(cut(*args)) or cuts[-1])
    pieces = predict(model, image, patch_size=(6, 16, 16), device=where, **how)["affinity"]
    assert where == "cpu" or len(cuts[0].boxes) > 1 or cuts[0].depth is not None
    np.testing.assert_allclose(pieces, whole, atol=1e-6)


@pytest.mark.parametrize("image", [np.full((4, 16, 16), 200.0), np.full((4, 16, 16), -1.0, np.float32)])
def test_grey_values_outside_of_what_training_saw_are_refused(image):
    with pytest.raises(InputError, match=r"image: got values from .*, wants uint8, or floats from 0 to 1"):
        predict(lambda x: {"a": x}, image, patch_size=(4, 16, 16))
