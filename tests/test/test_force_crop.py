"""Outputs smaller than what the network gives: every voxel where it belongs, odd sizes included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deepem.scan.patch_network import Network
from deepem.utils.crop import centre_crop, centre_slices
from deepem.utils.errors import InputError

VALID = '''"""Gives its input back, less a border, as a network without padding would."""
import torch
from deepem.utils.crop import centre_crop


def output_size(input_size):
    return tuple(n - m for n, m in zip(input_size, (2, 4, 5)))


class Net(torch.nn.Module):
    def __init__(self, heads):
        super().__init__()
        self.heads, self.scale = heads, torch.nn.Parameter(torch.ones(1))

    def forward(self, image):
        inner = torch.logit(centre_crop(image, output_size(image.shape[2:])) * self.scale, 1e-6)
        return {name: inner.expand(-1, count, -1, -1, -1) for name, count in self.heads.items()}


def create_model(*, in_spec, out_spec):
    return Net({name: shape[0] for name, shape in out_spec.items()})
'''


@pytest.mark.parametrize("output", [(4, 12, 11), (3, 7, 7), (2, 6, 8), (1, 1, 1)])
@pytest.mark.parametrize("gives", [(4, 12, 11), (6, 16, 16)])
def test_the_middle_is_cut_out_of_what_the_model_gives(output, gives):
    patch = (6, 16, 16)
    places = torch.arange(6 * 16 * 16).reshape(1, 1, *patch) / 2000  # each voxel has a value of its own
    front = tuple(s.start for s in centre_slices(patch, output))
    net = Network(lambda p: {"a": centre_crop(torch.logit(p), gives)}, output, front, gives=gives)
    (z, y, x), (dz, dy, dx) = front, output
    torch.testing.assert_close(net(places)["a"], places[..., z : z + dz, y : y + dy, x : x + dx])


def test_a_size_that_the_model_should_not_give_is_refused():
    net = Network(lambda p: {"a": p[..., 1:, 1:, 1:]}, (2, 6, 6), (1, 1, 1), gives=(3, 7, 6))
    with pytest.raises(InputError, match=r"size \(3, 7, 7\), wants the output size \(3, 7, 6\)"):
        net(torch.zeros(1, 1, 4, 8, 8))


@pytest.mark.parametrize("flag", ["--force_crop", "--outputsz"])
@pytest.mark.parametrize("size", [(4, 12, 11), (3, 7, 6), (2, 12, 5)])
def test_a_network_that_gives_less_than_its_patch_is_cropped_further(lab, flag, size):
    (lab.folder / "valid.py").write_text(VALID)
    sizes = {"fov": [6, 16, 16], "inputsz": [6, 16, 16], "outputsz": [4, 12, 11]}
    lab.save(9, {"state_dict": {"scale": torch.ones(1)}, "options": {"model": "valid.py", "mit": 1.0, **sizes}})
    image = lab.image("a", (9, 37, 29))
    lab.forward("--model", "valid.py", "--data_dir", "data", "--test_ids", "a", flag, ",".join(map(str, size)))
    z, y, x = (
        slice(p // 2 - o // 2, n - (p - o - (p // 2 - o // 2)))
        for n, p, o in zip(image.shape, (6, 16, 16), size, strict=True)
    )
    np.testing.assert_allclose(lab.output("a_mitochondria_9")[0], image[z, y, x] / 255, atol=1e-5)
