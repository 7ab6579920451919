"""While training, a whole volume is predicted and scored as the commands would, and the best can follow its score."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lab import same
from torch import nn

from deepem import tasks
from deepem.build.network import PatchSizes
from deepem.evaluate import adapted_rand
from deepem.runs import events
from deepem.runs.folder import RunFolder
from deepem.segment import segment
from deepem.tasks import NEAREST_EDGES
from deepem.train.whole_volume import WholeVolume
from deepem.utils import checkpoint
from deepem.utils.edges import edge_views

WHOLE = ("--eval_segment", "c", "--eval_segment_intv", 3, "--chkpt_intv", 3, "--max_iter", 6)


def test_scores_are_those_of_the_commands(lab, capsys):
    lab.train("run", *WHOLE)
    first, last = lab.rows("run", "segment")
    assert [first["iter"], last["iter"]] == [3, 6]
    assert set(last) == {"iter", "phase"} | {
        f"affinity/{name}" for name in ("arand", "voi", "voi_split", "voi_merge", "threshold")
    } | {"mitochondria/f1", "mitochondria/auc"}  # fmt: skip
    from deepem.build.stored import stored_run
    from deepem.test.forward import predict

    state = lab.state("run", 6)
    network = stored_run(state, "x", "net.py").network()
    network.load_state_dict(state["ema"])
    seen = predict(network, np.load("c_img.npy"), patch_size=(4, 12, 12))
    truth = np.load("c_seg.npy")
    found = segment(seen["affinity"], threshold=last["affinity/threshold"])
    assert last["affinity/arand"] == pytest.approx(adapted_rand(found, truth)["error"], abs=1e-3)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("segment")]
    assert len(told) == 2
    assert "c: " in told[0]
    assert "s to predict, " in told[0]


class Sees(nn.Module):
    """Knows the cells by their grey values, and gives the middle of a patch only."""

    def forward(self, x):
        logits = torch.full((1, 3, *x.shape[2:]), -20.0)
        for channel, edge in enumerate(NEAREST_EDGES):
            first, second = edge_views(x[:, 0], edge)
            edge_views(logits[:, channel], edge)[0][...] = torch.where(first == second, 20.0, -20.0)
        return {"affinity": logits[..., 1:-1, 3:-3, 2:-2]}


def test_the_truth_is_that_of_the_voxels_that_patches_cover():
    cells = np.arange(1, 241).reshape(5, 6, 8).repeat(2, 0).repeat(3, 1).repeat(2, 2)
    arrays = {"img": cells.astype(np.uint8)[None], "seg": cells[None]}
    (row,) = tasks.choose(["aff"])
    whole = WholeVolume("c", arrays, (row,), PatchSizes((4, 10, 8), (2, 4, 4)))
    told = {}
    trainer = SimpleNamespace(
        network=Sees(), device=torch.device("cpu"), iteration=7, evaluating=nullcontext,
        precision=SimpleNamespace(dtype=torch.float32),
    )  # fmt: skip
    log = SimpleNamespace(segment_row=lambda iteration, scores, seconds, line: told.update({iteration: scores}))
    whole.score(trainer, log)
    assert told[7]["affinity/arand"] == 0


class Finds(nn.Module):
    """Finds the cells by their grey values."""

    paste_masks = True

    def forward(self, x):
        assert not self.paste_masks, "masks as large as the patch would be made for nothing"
        grey = (x[0, 0] * 255).round()
        at = [(grey == value).nonzero() for value in grey.unique() if value > 0]
        boxes = torch.stack([torch.cat([one.amin(0), one.amax(0) + 1]) for one in at])
        found = {"boxes": boxes.float(), "labels": torch.ones(len(at)), "scores": torch.linspace(1, 0.5, len(at)),
                 "mask_probs": torch.ones(len(at), 1, 1, 1)}  # fmt: skip
        return {"instance": [found], "mitochondria": torch.where(x > 0, 9.0, -9.0)}


def test_objects_are_found_in_the_whole_volume_and_scored_beside_dense_outputs():
    cells = np.zeros((12, 20, 24), np.uint8)
    for value, (z, y, x) in enumerate(np.ndindex(2, 3, 4), 1):
        cells[6 * z : 6 * z + 5, 6 * y + 1 : 6 * y + 6, 6 * x : 6 * x + 5] = value
    truth = np.stack([cells * (cells % 2), (cells * (cells % 2 == 0) + 1) // 2 * (cells % 2 == 0) * (cells > 0)])
    arrays = {"img": cells[None], "seg": truth, "mit": (cells > 0)[None].astype(np.uint8)}
    rows = tasks.choose(["inst", "mit"])
    told = {}
    network = Finds()
    trainer = SimpleNamespace(
        network=network, device=torch.device("cpu"), iteration=7, evaluating=nullcontext,
        precision=SimpleNamespace(dtype=torch.float32),
    )  # fmt: skip
    log = SimpleNamespace(segment_row=lambda iteration, scores, seconds, line: told.update(scores))
    WholeVolume("c", arrays, rows, PatchSizes((12, 14, 16), (12, 14, 16))).score(trainer, log)
    assert {name: told[f"instance/{name}"] for name in ("ap", "f1", "pq")} == {"ap": 1, "f1": 1, "pq": 1}
    assert told["mitochondria/f1"] == 1
    assert network.paste_masks, "training pictures need them"


def test_training_is_the_same_with_and_without(lab):
    lab.train("with", *WHOLE)
    lab.train("without", "--max_iter", 6, "--chkpt_intv", 3)
    a, b = lab.state("with", 6), lab.state("without", 6)
    assert all(same(a[key], b[key]) for key in ("state_dict", "optimizer"))


def test_scores_go_to_tensorboard(lab):
    lab.train("run", *WHOLE)
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = accumulator.EventAccumulator(str(lab.cwd / "experiments" / "run" / "logs"))
    board.Reload()
    assert [event.step for event in board.Scalars("segment/affinity/arand")] == [3, 6]


@pytest.mark.parametrize(("by", "wants"), [("arand", 3), ("f1", 6), ("loss", 6)])
def test_the_best_checkpoint_follows_what_is_asked_for(tmp_path, by, wants):
    run = RunFolder(tmp_path, best_by=by, lower=by != "f1")
    run.models.mkdir()
    run.logs.mkdir()
    rows = [
        {"iter": 3, "phase": "segment", "affinity/arand": 0.1, "long/arand": 0.3, "mit/f1": 0.2},
        {"iter": 6, "phase": "segment", "affinity/arand": 0.3, "long/arand": 0.2, "mit/f1": 0.4},
        {"iter": 3, "phase": "test", "loss": 2.0},
        {"iter": 6, "phase": "test", "loss": 1.0},
    ]
    for row in rows:
        events.append_row(run.logs / "metrics.jsonl", row)
    for number in (3, 6):
        checkpoint.write(checkpoint.path_of(run.models, number), {"iter": number, "x": torch.zeros(1)})
    assert run.link_best() == wants


def test_a_run_links_its_best_by_the_score(lab):
    lab.train("run", *WHOLE, "--best_by", "arand")
    rows = {row["iter"]: row["affinity/arand"] for row in lab.rows("run", "segment")}
    linked = checkpoint.read(lab.models("run") / "best.chkpt")["iter"]
    assert rows[linked] == min(rows.values())


def test_what_a_stopped_run_owes_is_made_up_for(lab):
    lab.train("run", *WHOLE)
    log = lab.cwd / "experiments" / "run" / "logs" / "metrics.jsonl"
    before = lab.rows("run", "segment")
    kept = [
        line
        for line in log.read_text().splitlines()
        if json.loads(line) | {"phase": "segment", "iter": 6} != json.loads(line)
    ]
    log.write_text("\n".join(kept) + "\n")
    assert len(lab.rows("run", "segment")) == 1
    lab.train("run", *WHOLE)
    assert lab.rows("run", "segment") == before


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--eval_segment", "x"), "--eval_segment: got x, wants one of a, b, c"),
        (("--best_by", "voi"), "--best_by: got voi without --eval_segment, wants the id of a volume to score"),
        (("--eval_segment", "c", "--fov", "4,32,32"), "--eval_segment: got a volume of (8, 24, 24), wants a patch"),
    ],
)
def test_what_cannot_be_scored_is_refused_at_the_start(lab, capsys, words, line):
    if "--fov" in words:
        for key in ("img", "seg", "mit"):
            for name in "ab":
                array = np.load(f"{name}_{key}.npy")
                np.save(f"{name}_{key}.npy", np.tile(array, (1, 2, 2)))
        words = (*words, "--val_ids", "a")
    assert lab.fails("run", *words) == 2
    assert line in capsys.readouterr().err
    assert not (lab.cwd / "experiments").exists()
