"""Instances on the command line of training: one flag, the network's own losses, dense heads beside them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from deepem.evaluate import instances
from deepem.io.stored import Image
from deepem.models.detection.mask_rcnn import LOSSES
from deepem.utils import checkpoint

NUCLEI = """
from pathlib import Path
import numpy as np

data_info = ["a", "b", "two"]

def load_data(data_dir, data_ids=None, **_):
    return {i: {key: np.load(Path(data_dir) / f"{i}_{key}.npy") for key in ("img", "seg")} for i in data_ids}
"""

SMALL = str.split(
    "--model mask_rcnn --backbone resnet18 --resnet_width 4 --norm group --norm_groups 2 --return_layers p2 p3 "
    "--fpn_width 8 --no-fpn_pool --box_width 16 --box_rois 8 --mask_width 8 --mask_pool 4 --box_pool 3 "
    "--rpn_rois 16 --anchor_sizes 6 / 12 --rpn_pre_nms 50 --rpn_post_nms 20 --box_detections 10"
)


ALL_DRAWN = str.split("--rpn_rois 100000 --box_rois 100000 --optim SGD --lr 1e-2 --max_iter 1")
"""Nothing is left to chance: every anchor and every proposal is trained on."""


def balls(size, count, seed):
    """Labels of balls, the later ones in front."""
    rng = np.random.default_rng(seed)
    at = np.indices(size)
    labels = np.zeros(size, np.int32)
    for label in range(1, count + 1):
        centre = rng.integers(2, np.array(size) - 2)
        labels[((at - centre[:, None, None, None]) ** 2).sum(0) < 16] = label
    return labels


@pytest.fixture
def nuclei(lab):
    """The lab with volumes of balls, and words for a small detector."""
    (lab.folder / "nuclei.py").write_text(NUCLEI)
    rng = np.random.default_rng(0)
    for name, seed in (("a", 1), ("b", 2), ("two", 3)):
        seg = balls((24, 40, 40), 20, seed)
        np.save(lab.folder / f"{name}_img.npy", (150 * (seg > 0) + rng.integers(0, 60, seg.shape)).astype(np.uint8))
        if name == "two":
            seg = np.stack([seg * (seg % 2 == 0), seg * (seg % 2 == 1)])
        np.save(lab.folder / f"{name}_seg.npy", seg)
    own = f"--data_dir . --data nuclei.py --train_ids a --val_ids b --cpu --inst 1 --fov 16,32,32 {' '.join(SMALL)}"
    often = "--num_workers 0 --eval_iter 2 --eval_intv 2 --imgs_intv 1000 --warm_up 9 --amp off --lr 1e-3"
    lab.base = f"{own} {often} --augment flip_rotate --batch_size 2".split()
    return lab


def close(a, b, tolerance=1e-5):
    return all(torch.allclose(a[name].float(), b[name].float(), rtol=tolerance, atol=tolerance) for name in a)


def test_each_loss_is_logged_and_a_resumed_run_is_equal_to_the_bit(nuclei, equal_runs):
    nuclei.train("whole", "--max_iter", 4, "--imgs_intv", 2)
    rows = nuclei.rows("whole", "train")
    assert [row["iter"] for row in rows] == [1, 2, 3, 4]
    assert all(set(LOSSES) <= row.keys() for row in rows)
    test = nuclei.rows("whole", "test")[-1]
    assert test["loss"] == pytest.approx(sum(test[name] for name in LOSSES))
    nuclei.train("parts", "--max_iter", 2)
    nuclei.train("parts", "--max_iter", 4)
    equal_runs("whole", "parts", 4)


def test_dense_heads_train_beside_it_in_one_forward_pass(nuclei, monkeypatch):
    from deepem.models.detection.mask_rcnn import MaskRCNN

    calls, features = [], MaskRCNN.features
    monkeypatch.setattr(MaskRCNN, "features", lambda net, x: calls.append(net.training) or features(net, x))
    nuclei.train("both", "--aff", 0.5, "--max_iter", 2)
    assert calls.count(True) == 1 + 2, "one trial, then one for each step"
    row = nuclei.rows("both", "train")[-1]
    assert {*LOSSES, "affinity"} <= row.keys()
    test = nuclei.rows("both", "test")[-1]
    assert test["loss"] == pytest.approx(sum(test[name] for name in LOSSES) + 0.5 * test["affinity"])


def test_the_weight_of_the_task_holds_for_all_its_losses_and_each_has_one_more(nuclei):
    nuclei.train("plain", "--max_iter", 1, "--optim", "SGD")
    nuclei.train("half", "--max_iter", 1, "--optim", "SGD", "--inst", 0.5, "--lr", "2e-3")
    assert close(nuclei.state("plain", 1)["state_dict"], nuclei.state("half", 1)["state_dict"])
    nuclei.train("no_mask", "--max_iter", 1, "--inst_mask_weight", 0, "--inst_box_weight", 2)
    one, other = (nuclei.rows(name, "train")[0] for name in ("plain", "no_mask"))
    assert other["mask"] == 0
    assert other["box"] == pytest.approx(2 * one["box"])
    assert other["objectness"] == one["objectness"]


def test_classes_have_a_channel_of_ids_each(nuclei, capsys):
    two = ("--train_ids", "two", "--val_ids", "two")
    nuclei.train("two", *two, "--inst_classes", 2, "--aff", 1, "--max_iter", 1)
    heads = nuclei.state("two", 1)["state_dict"]
    assert heads["roi_heads.box_predictor.cls_score.weight"].shape[0] == 3
    assert nuclei.fails("run", "--inst_classes", 3, *two) == 2
    assert "seg: got 2 volumes of ids, wants 3, one for each class" in capsys.readouterr().err


def test_parts_of_a_batch_are_added_up(nuclei):
    nuclei.train("whole", *ALL_DRAWN)
    nuclei.train("parts", *ALL_DRAWN, "--accumulate", 2)
    nuclei.train("other", *ALL_DRAWN, "--accumulate", 2, "--inst", 0.99)
    whole, parts, other = (nuclei.state(name, 1)["state_dict"] for name in ("whole", "parts", "other"))
    assert close(whole, parts)
    assert not close(whole, other)
    for name in LOSSES:
        assert nuclei.rows("whole")[0][name] == pytest.approx(nuclei.rows("parts")[0][name], rel=1e-4)


def test_two_ranks_take_the_step_of_one(nuclei):
    nuclei.train("one", *ALL_DRAWN)
    assert nuclei.together("two", *ALL_DRAWN) == [0, 0]
    assert close(nuclei.state("one", 1)["state_dict"], nuclei.state("two", 1)["state_dict"])


def test_a_model_without_losses_of_its_own_is_refused(nuclei, capsys):
    assert nuclei.fails("run", "--inst", 0, "--aff", 1) == 2
    assert "--model mask_rcnn: got the outputs affinity, wants instance, the task inst" in capsys.readouterr().err
    nuclei.base = " ".join(nuclei.base).replace(" ".join(SMALL), "").split()
    assert nuclei.fails("run", "--model", "net.py") == 2
    told = capsys.readouterr().err
    assert "--inst: got --model net.py, wants a model that computes its losses itself, such as mask_rcnn" in told


def test_a_picture_shows_objects_and_boxes(nuclei):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    nuclei.train("run", "--max_iter", 1, "--imgs_intv", 1, "--box_score_thresh", 0)
    board = EventAccumulator(str(nuclei.cwd / "experiments/run/logs"), size_guidance={"images": 0}).Reload()
    assert "train/images/instance" in board.Tags()["images"]
    image = board.Images("train/images/instance")[0]
    assert (image.height, image.width) == (32, 4 * 32 + 3 * 2)
    (nuclei.folder / "picture.png").write_bytes(image.encoded_image_string)


# Scores of a whole volume


def test_scores_while_training_are_those_of_the_commands(nuclei):
    nuclei.train("run", "--eval_segment", "b", "--eval_segment_intv", 2, "--chkpt_intv", 2, "--max_iter", 4,
                 "--box_score_thresh", 0.2, "--best_by", "ap", "--num_workers", 1, "--aff", 0.5)  # fmt: skip
    first, last = nuclei.rows("run", "segment")
    assert [first["iter"], last["iter"]] == [2, 4]
    assert {"instance/ap", "instance/f1", "instance/pq", "affinity/arand"} <= last.keys()
    best = checkpoint.read(nuclei.models("run") / "best.chkpt")["iter"]
    assert best == (2 if first["instance/ap"] > last["instance/ap"] else best)
    (nuclei.folder / "b").mkdir()
    np.save("b/img.npy", np.load("b_img.npy"))
    nuclei.forward("--exp_name", "run", "--data_dir", ".", "--test_ids", "b", "--input_name", "img.npy")
    with h5py.File("experiments/run/forward/b_instance_4.h5") as file:
        labels = file["main"][()]
    found = instances(labels, np.load("b_seg.npy"))
    assert found["predicted"] > 3
    assert last["instance/ap"] == pytest.approx(found["ap"][0.5])
    assert last["instance/pq"] == pytest.approx(found["pq"])


@pytest.mark.parametrize(("words", "line"), [
    (("--best_by", "arand"), "--best_by: got arand, wants loss, or a score of --inst: ap, f1, pq"),
    (("--best_by", "ap", "--eval_segment", "c"), "--eval_segment: got c, wants one of a, b, two"),
])  # fmt: skip
def test_what_cannot_be_scored_is_refused(nuclei, capsys, words, line):
    assert nuclei.fails("run", "--eval_segment", "b", *words) == 2
    assert line in capsys.readouterr().err


def test_a_whole_volume_is_scored_with_the_grey_values_of_the_run(nuclei, monkeypatch):
    for name in "ab":
        np.save(f"{name}_img.npy", np.load(f"{name}_img.npy").astype(np.uint16) * 100 + 300)
    seen = []
    monkeypatch.setattr(Image, "__post_init__", lambda image: seen.append(np.asarray(image.data)))
    nuclei.train("run", "--intensity", "300,21300", "--max_iter", 1, "--eval_segment", "b", "--eval_segment_intv", 1)
    assert np.allclose(seen[0], (np.load("b_img.npy")[None] - 300) / 21000)


def test_volumes_of_a_folder_are_scored_while_training_and_crops_are_refused(crops, capsys):
    words = ("--max_iter", 1, "--eval_segment", "b", "--eval_segment_intv", 1)
    crops.train("run", *words, "--data", "lightsheet.folder")
    assert set(crops.rows("run", "segment")[0]) >= {"instance/ap", "instance/f1", "instance/pq"}
    assert crops.fails("crops", *words, "--data", "lightsheet.database") == 2
    assert (
        "--eval_segment: got b of lightsheet.database, which gives crops, wants a volume of" in capsys.readouterr().err
    )


# Crops of an index, or any torch Dataset of a module's own

OWN = """
import torch

data_info = ["only"]

class Items:
    def __len__(self):
        return 3

    def __getitem__(self, i):
        masks = torch.zeros(2, 16, 32, 32)
        masks[0, 2:8, 4:12, 4:12], masks[1, 8:12, 20:28, 20:28] = 1, 1
        return masks.amax(0)[None] * 0.5, {"labels": torch.tensor([1, 2]), "masks": masks}

def get_items(data_dir, data_ids=None, *, bright: float = 0.5):
    return Items()
"""


@pytest.fixture
def crops(lab):
    """The lab with a folder of volumes, and words for a small detector on their crops."""
    pytest.importorskip("sqlalchemy")
    for seed, name in enumerate("ab"):
        seg = balls((24, 40, 40), 20, seed)
        (lab.folder / "data" / name).mkdir(parents=True)
        np.save(lab.folder / f"data/{name}/img.npy", (150 * (seg > 0)).astype(np.uint8))
        np.save(lab.folder / f"data/{name}/seg.npy", seg)
    own = f"--data_dir data --cpu --inst 1 --fov 16,32,32 {' '.join(SMALL)} --num_workers 0 --amp off"
    lab.base = f"{own} --eval_iter 2 --eval_intv 2 --warm_up 9 --augment flip_rotate --batch_size 2".split()
    return lab


def test_crops_of_an_index_train_evaluate_and_resume(crops, equal_runs):
    words = ("--data", "lightsheet.database", "--crop_size", "20,36,36", "--aff", 0.5)
    crops.train("whole", *words, "--max_iter", 4)
    crops.train("parts", *words, "--max_iter", 2)
    crops.train("parts", *words, "--max_iter", 4, "--num_workers", 1)
    equal_runs("whole", "parts", 4)
    assert {"objectness", "mask", "affinity"} <= crops.rows("whole", "test")[-1].keys()
    assert (crops.folder / "data/crops.db").exists()


def test_a_dataset_of_ones_own_trains(crops, capsys):
    (crops.folder / "own.py").write_text(OWN)
    crops.train("own", "--data", "own.py", "--inst_classes", 2, "--max_iter", 1, "--bright", 0.3)
    assert crops.rows("own", "train")[0]["mask"] > 0
    assert crops.fails("run", "--data", "own.py", "--mit", 1) == 2
    assert "--mit: got items of own.py, wants a task that instances are a label of" in capsys.readouterr().err
    assert crops.fails("run", "--data", "own.py", "lightsheet.folder") == 2
    assert "--data: got 2 modules, one of which gives items, wants that one alone" in capsys.readouterr().err
