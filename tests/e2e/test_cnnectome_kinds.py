"""Super-resolution, four and two dimensions, several decoders, and checkpoints of before: CNNectome runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from cnnectome_lab import NET, applied, network, read, rows, stitch, words
from lab import Lab, same

import deepem
from deepem.data.emio import imsave
from deepem.models.cnnectome import CNNectomeUNetModule
from deepem.tools import export, serving
from deepem.train.run import main as train
from deepem.utils import checkpoint

FINER = """
from pathlib import Path
import numpy as np

data_info = ["a", "b", "c"]

def load_data(data_dir, data_ids=None, **_):
    volumes = {}
    for name in data_ids:
        volumes[name] = {key: np.load(Path(data_dir) / name / f"{key}.npy") for key in ("img", "seg", "mit")}
        volumes[name]["label_factor"] = (2, 1, 2)
    return volumes
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    made = Lab.with_dataset(tmp_path / "lab")
    monkeypatch.chdir(made.cwd)
    return made


def blobs(seed: int, size: tuple[int, int, int]) -> np.ndarray:
    """Ellipsoids at random places, as bytes of 0 and 1."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"))
    found = np.zeros(size, bool)
    for _ in range(60):
        centre = rng.uniform(0, size)[:, None, None, None]
        radius = rng.uniform(4, 9, 3)[:, None, None, None]
        found |= (((grid - centre) / radius) ** 2).sum(0) < 1
    return found.astype(np.uint8)


def finer_lab(lab: Lab) -> dict[str, np.ndarray]:
    """Volumes whose image is the mean over 2 x 1 x 2 voxels of what their labels mark; the truth by id."""
    lab.module.write_text(FINER)
    truth = {}
    for seed, name in enumerate("abc"):
        fine = blobs(seed, (40, 44, 116))
        coarse = fine.reshape(20, 2, 44, 58, 2).mean((1, 4))
        noise = np.random.default_rng(seed).normal(0, 4, coarse.shape)
        image = (40 + 170 * coarse + noise).clip(0, 255).astype(np.uint8)
        for key, array in {"img": image, "mit": fine, "seg": fine + 1}.items():
            lab.array(name, key, array)
        imsave(image, lab.data / name / "img.h5")
        with h5py.File(lab.data / name / "img.h5", "a") as file:
            file["main"].attrs["voxel_size_nm"] = (40.0, 4.0, 8.0)
        truth[name] = fine
    return truth


KERNELS = "--downsample_factors 1,2,2 --kernel_size_down 3,3,3 / 3,3,3 --kernel_size_up 3,3,3"
SUPER = f"{NET} --upsample_factors 2,1,1 1,1,2 {KERNELS}"


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.parametrize(
    ("padding", "fov"), [("valid", "12,24,24"), pytest.param("same", "6,16,16", marks=pytest.mark.slow)]
)
def test_a_super_resolved_output_overlays_the_finer_truth(lab: Lab, padding: str, fov: str) -> None:
    truth = finer_lab(lab)["c"]
    more = f"{SUPER} --padding {padding} --superres_padding {padding} --fov {fov} --lr 0.01 --activation ELU"
    Path("flip.py").write_text(
        "from deepem.data.transform import Compose, Flip, Grayscale3D\n"
        "def get_augmentation(is_train):\n    return Compose([Grayscale3D(0.1, 0.1), Flip(1), Flip(2), Flip(3)])\n"
    )
    train(
        words(
            lab,
            "fine",
            more,
            "--max_iter 120 --eval_intv 60 --imgs_intv 60 --batch_size 4 --aff 0.1 --mit 1 --num_fmaps 6",
        )
    )
    assert len(rows("fine", "test")) == 2
    for name, words_ in (("as", []), ("mirror", ["--context", "mirror"]), ("flips", ["--test_aug", "0", "14"])):
        stitch(lab, "fine", "--out_tag", name, *words_)
        found, attributes = read("fine", f"c_mitochondria_120_{name}")
        assert attributes["voxel_size_nm"].tolist() == [20, 4, 4]
        begin, mine = attributes["offset"], found[0] > 0.5
        if padding == "same" or name == "mirror":
            assert (begin.tolist(), mine.shape) == ([0, 0, 0], truth.shape)
        else:
            assert (begin > 0).all()
        scores = {}
        for shift in np.ndindex(3, 3, 3):
            moved = [b + s - 1 for b, s in zip(begin, shift, strict=True)]
            there = [slice(max(m, 0), m + n) for m, n in zip(moved, mine.shape, strict=True)]
            other = truth[tuple(there)]
            here = tuple(slice(s.start - m, s.start - m + n) for s, m, n in zip(there, moved, other.shape, strict=True))
            scores[tuple(s - 1 for s in shift)] = overlap(mine[here], other > 0)
        assert max(scores, key=scores.__getitem__) == (0, 0, 0), scores
        assert scores[0, 0, 0] > 0.75
    with pytest.raises(SystemExit, match="2"):
        stitch(lab, "fine", "--test_aug", "1")  # exchanges y and x, whose factors differ


def test_stitched_super_resolution_is_the_network_applied_to_the_whole(lab: Lab, monkeypatch) -> None:
    finer_lab(lab)
    train(words(lab, "fine", f"{SUPER} --superres_padding valid --fov 12,26,30"))
    stitch(lab, "fine")
    found, attributes = read("fine", "c_affinity_4")
    whole = applied(network("fine"), np.load(lab.data / "c/img.npy"))["affinity"]
    assert found.shape == whole.shape
    np.testing.assert_allclose(found, whole, atol=2e-6)
    front = [(40 - whole.shape[1]) // 2, (44 - whole.shape[2]) // 2, (116 - whole.shape[3]) // 2]
    assert attributes["offset"].tolist() == front
    for name in ("program", "onnx"):
        monkeypatch.setattr(serving, name, lambda *_: 1 / 0)
    assert export.main(["--exp_name", "fine", "--out", "served"]) == 0
    card = json.loads(Path("served/model.json").read_text())
    assert (card["output_begins"], card["output_factor"]) == (front, [2, 1, 2])
    patch = np.load(lab.data / "c/img.npy")[:12, :26, :30]
    served = applied(deepem.load("served"), patch)["affinity"]
    assert card["outputs"]["affinity"] == list(served.shape)
    np.testing.assert_allclose(served, whole[(slice(None), *map(slice, served.shape[1:]))], atol=2e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--augment grayscale_warping --warping", "--augment: got .*Warp.* for a, whose labels are finer"),
        ("--upsample_factors 2,1,1", r"--data: got labels of a with label_factor \(2, 1, 2\), wants \(2, 1, 1\)"),
        ("--modifier crop2x", "--modifier: got crop2x"),
    ],
)
def test_what_does_not_go_with_finer_labels_is_refused_at_the_start(lab, more, message, capsys) -> None:
    finer_lab(lab)
    with pytest.raises(SystemExit, match="2"):
        train(words(lab, "fine", SUPER, "--fov 12,26,30", more))
    assert re.search(message, capsys.readouterr().err)
    assert not Path("experiments/fine").exists()


def test_a_volume_of_frames(lab: Lab) -> None:
    """Six channels are two of three frames; what the network sees of them is geometry alike."""
    lab.module.write_text(lab.module.read_text().replace('.npy")', '.npy") '))
    for name in "abc":
        image = np.load(lab.data / name / "img.npy")
        frames = np.stack([np.roll(image, shift, 2) for shift in range(6)])
        lab.array(name, "img", frames)
        imsave(frames, lab.data / name / "img.h5")
    long = (
        f"{NET} --length 3 --kernel_size_down 3,3,3,3 1,3,3 / 3,3,3 --kernel_size_up 1,3,3 --downsample_factors 1,2,2"
    )
    train(words(lab, "film", long, "--fov 7,26,30", "--augment flip_rotate"))
    stitch(lab, "film")
    found, _ = read("film", "c_affinity_4")
    frames = np.load(lab.data / "c/img.npy")
    fits = frames[:, :, :48, :54]
    whole = applied(network("film"), fits)["affinity"]
    np.testing.assert_allclose(found[:, : whole.shape[1], : whole.shape[2], : whole.shape[3]], whole, atol=2e-6)
    core = network("film").core
    assert core.l_conv[0].conv_pass[0].weight.shape[2:] == (3, 3, 3, 3)


def test_a_length_that_leaves_several_frames_is_refused(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        lab.array(name, "img", np.repeat(np.load(lab.data / name / "img.npy")[None], 6, 0))
    long = f"{NET} --length 6 --kernel_size_down 3,3,3,3 / 3,3,3 --kernel_size_up 1,3,3 --downsample_factors 1,2,2"
    with pytest.raises(SystemExit, match="2"):
        train(words(lab, "film", long, "--fov 7,26,30"))
    assert "--length: got 6, wants 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "way", ["--downsample_factors 2,2", "--downsample_factors 1,2,2 --kernel_size_down 3,3 / 1,3,3"]
)
def test_sections_on_their_own(lab: Lab, way: str) -> None:
    flat = f"{NET} {way} --kernel_size_up 3,3 --fov 1,26,30"
    train([*words(lab, "flat", flat), "--aff", "0", "--long", "1", "--edges", "0,1,0", "0,0,1"])
    imsave(np.load(lab.data / "c/img.npy"), lab.data / "c/img.h5")
    stitch(lab, "flat")
    found, _ = read("flat", "c_long_range_4")
    image = np.load(lab.data / "c/img.npy")
    model = network("flat")
    sections = np.concatenate([applied(model, image[z : z + 1, :46])["long_range"] for z in range(len(image))], 1)
    np.testing.assert_allclose(found[:, :, : sections.shape[2], : sections.shape[3]], sections, atol=2e-6)


def test_a_decoder_per_task(lab: Lab) -> None:
    more = f"{NET} {KERNELS} --fov 10,26,30"
    train(words(lab, "apart", more, "--decoder_per_task"))
    train(words(lab, "together", more))
    apart, together = network("apart"), network("together")
    assert len(apart.core.r_conv) == 2
    assert len(together.core.r_conv) == 1
    imsave(np.load(lab.data / "c/img.npy"), lab.data / "c/img.h5")
    stitch(lab, "apart")
    assert read("apart", "c_mitochondria_4")[0].shape[1:] == read("apart", "c_affinity_4")[0].shape[1:]
    train([*words(lab, "apart", more, "--decoder_per_task"), "--max_iter", "6"])
    assert len(rows("apart", "test")) == 3


BEFORE = ("downsample_factors", "kernel_size_down", "kernel_size_up", "padding", "pooling", "activation", "io_kernel")
BEFORE += ("upsample_channel_contraction", "upsample_factors", "superres_padding", "use_attention", "batch_norm")
BEFORE += ("decoder_per_task", "equivariant", "length", "fmaps_out", "activation_on_upsample", "constant_upsample")


def test_a_run_of_before_these_flags_goes_on_and_is_stitched(lab: Lab) -> None:
    """A checkpoint that knows --zfactor and --xyfactor alone is of a network that pads its first and last layer."""
    for file in lab.data.glob("*/*.npy"):
        lab.array(file.parent.name, file.stem, np.tile(np.load(file), (2, 1, 1)))
    old = "--model cnnectome_unet --num_fmaps 3 --fmap_inc_factor 2 --amp off --zfactor 1 --xyfactor 2 --fov 14,28,32"
    train(words(lab, "old", old, "--io_kernel 1,5,5 --equivariant True"))
    file = Path("experiments/old/models/model4.chkpt")
    state = checkpoint.read(file)
    assert "in.conv.conv.weight" in state["state_dict"]
    options = {name: value for name, value in state["options"].items() if name not in BEFORE}
    file.unlink()
    checkpoint.write(file, state | {"options": options})
    imsave(np.load(lab.data / "c/img.npy"), lab.data / "c/img.h5")
    stitch(lab, "old")
    first = read("old", "c_affinity_4")[0]
    assert 0 < first.min() < first.max() < 1
    train([*words(lab, "old", old), "--max_iter", "6"])
    more = checkpoint.read(Path("experiments/old/models/model6.chkpt"))
    assert more["options"]["io_kernel"] == [1, 5, 5]
    assert list(more["state_dict"]) == list(state["state_dict"])


def test_weights_of_dacapo_are_a_start(lab: Lab) -> None:
    more = f"{NET} {KERNELS} --fov 10,26,30"
    torch.manual_seed(3)
    theirs = torch.nn.Module()
    theirs.architecture = torch.nn.Module()
    theirs.architecture.unet = CNNectomeUNetModule(
        1, 3, 2, [(1, 2, 2)], [[(3, 3, 3)]] * 2, [[(3, 3, 3)]], constant_upsample=True, activation_on_upsample=True,
        batch_norm=False,
    )  # fmt: skip
    theirs.prediction_head = torch.nn.Conv3d(3, 3, 1)
    theirs.chain = torch.nn.Sequential(theirs.architecture, theirs.prediction_head)
    torch.save({"model": theirs.state_dict(), "optimizer": {"state": {}}}, "dacapo.pt")
    line = words(lab, "from", more, "--pretrain dacapo.pt --lr 1e-30 --max_iter 1 --mit 0")
    train(line)
    own, weights = network("from", 1).state_dict(), theirs.state_dict()
    assert same(own["out.affinity.conv.weight"], weights["prediction_head.weight"])
    unet = theirs.architecture.unet.state_dict()
    assert len(unet) + 2 == len(own)
    for key, value in unet.items():
        assert same(own[f"core.{key}"], value), key
