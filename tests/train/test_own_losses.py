"""A network that gives its own losses is trained, evaluated, drawn and resumed with them."""

from __future__ import annotations

import pytest
import torch

DETECTOR = """
import torch
import net
from deepem.loss import AffinityLoss, BCELoss

class Detector(net.Net):
    sum = BCELoss(size_average=False)
    affinity = AffinityLoss([(0, 0, 1), (0, 1, 0), (1, 0, 0)], sum)

    def losses(self, batch):
        made = self(batch["input"])
        found = {"affinity": self.affinity(made["affinity"], batch["affinity"], batch["affinity_mask"])}
        name = "mitochondria"
        found[name] = self.sum(made[name], batch[name], batch[name + "_mask"])
        return found | self.more(made)

    def more(self, made):
        return {}

class Frugal(Detector):
    def more(self, made):
        return {"size": (made["mitochondria"].sigmoid().sum(), made["mitochondria"].numel())}

def create_model(*, in_spec, out_spec, norm: str = "batch", dropout: float = 0.0, frugal: bool = False):
    return (Frugal if frugal else Detector)(out_spec, norm, dropout)
"""


@pytest.fixture
def detector(lab):
    """Words for a run of that network; its heads and the numbers in them are those of the lab's own."""
    (lab.folder / "detector.py").write_text("import sys\nsys.path.insert(0, '.')\n" + DETECTOR)
    return ("--model", "detector.py", "--batch_size", 4, "--norm", "group", "--eval_intv", 3)


def close(a, b):
    return all(torch.allclose(a[name], b[name], rtol=1e-5, atol=1e-7) for name in a)


@pytest.mark.parametrize("more", [(), ("--size_average",), ("--accumulate", 2)])
def test_losses_that_are_those_of_the_outputs_train_the_same_network(lab, detector, equal_runs, more):
    lab.train("own", *detector, *more, "--max_iter", 4)
    lab.train("usual", *detector, "--model", "net.py", *more, "--max_iter", 4)
    equal_runs("own", "usual", 4)


def test_a_loss_of_no_head_counts_once_and_is_logged(lab, detector, equal_runs):
    more = (*detector, "--frugal", "--imgs_intv", 1, "--optim", "SGD", "--lr", "1e-4")
    lab.train("own", *more, "--max_iter", 6)
    [test, _] = lab.rows("own", "test")
    assert test["loss"] == pytest.approx(test["affinity"] + 0.5 * test["mitochondria"] + test["size"])
    assert 0 < lab.rows("own", "train")[0]["size"] < 1
    lab.train("parts", *more, "--max_iter", 4)
    lab.train("parts", *more, "--max_iter", 6)
    equal_runs("own", "parts", 6)


@pytest.mark.parametrize("more", [(), ("--size_average",)])
def test_two_ranks_take_the_step_of_one(lab, detector, more):
    more = (*detector, "--frugal", *more, "--optim", "SGD", "--lr", "1e-3", "--max_iter", 2)
    lab.train("one", *more)
    assert lab.together("two", *more) == [0, 0]
    assert close(lab.state("one", 2)["state_dict"], lab.state("two", 2)["state_dict"])


def test_means_over_parts_are_refused(lab, detector, capsys):
    assert lab.fails("run", *detector, "--size_average", "--accumulate", 2) == 2
    assert "--accumulate: got 2, wants 1: --model counts its losses itself" in capsys.readouterr().err
