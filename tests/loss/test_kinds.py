"""Which criterion each task is trained with."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from deepem.loss import AffinityLoss, BalancedLoss, BCELoss, MSELoss, criterion
from deepem.tasks import KINDS, TASKS, choose
from deepem.utils.errors import InputError

AFF, LONG, MIT = choose(["aff", "long", "mit"], edges=[(0, 0, 5), (-2, 0, 0)])


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.flag)
def test_every_task_has_a_criterion(task):
    assert (criterion(task) is None) == (task.kind == "instance"), "that one the network computes itself"


def test_every_kind_has_one_and_other_kinds_none():
    assert {task.kind for task in TASKS} <= set(KINDS)
    for kind in KINDS:
        criterion(replace(MIT, kind=kind))
    with pytest.raises(ValueError, match="no criterion"):
        criterion(replace(MIT, kind="else"))


@pytest.mark.parametrize("task", [AFF, LONG])
def test_affinities_follow_every_flag(task):
    flags = {"size_average": True, "margin0": 0.1, "margin1": 0.2, "inverse": True, "default_aux": True}
    made = criterion(task, loss="MSELoss", class_balancing=True, **flags)
    assert isinstance(made, AffinityLoss)
    assert isinstance(made.criterion, MSELoss)
    assert made.edges == task.edges
    assert (made.size_average, made.class_balancing, made.criterion.size_average) == (True, True, False)
    assert (made.criterion.margin0, made.criterion.margin1) == (0.1, 0.2)
    assert criterion(task, inverse=True).criterion.inverse
    assert not criterion(task).criterion.inverse


def test_every_other_head_has_cross_entropy_and_its_own_margins():
    flags = {"loss": "MSELoss", "size_average": True, "margin0": 0.1, "margin1": 0.2, "inverse": True}
    made = criterion(MIT, **flags)
    assert isinstance(made, BCELoss)
    assert (made.size_average, made.margin0, made.margin1, made.inverse) == (True, 0.1, 0.2, True)
    plain = criterion(MIT, **flags, default_aux=True)
    assert (plain.size_average, plain.margin0, plain.margin1, plain.inverse) == (True, 0, 0, False)


def test_an_unknown_loss_is_bad_input():
    with pytest.raises(InputError, match="loss: got L7, wants one of BCELoss, MSELoss"):
        criterion(AFF, loss="L7")


def test_a_bare_word_means_what_it_meant():
    """Loss and balancing of affinities alone, margins of all."""
    assert isinstance(criterion(AFF, loss={"": "MSELoss", "mit": "BCELoss"}).criterion, MSELoss)
    assert isinstance(criterion(MIT, loss="MSELoss"), BCELoss)
    assert isinstance(criterion(MIT, class_balancing=True), BCELoss)
    assert criterion(MIT, margin0={"": 0.1, "aff": 0.2}).margin0 == 0.1


def test_a_named_task_has_what_is_named():
    made = criterion(MIT, loss={"mit": "MSELoss"}, margin1={"mit": 0.3}, default_aux=True)
    assert isinstance(made, MSELoss)
    assert (made.margin0, made.margin1) == (0, 0.3)
    assert isinstance(criterion(AFF, loss={"mit": "MSELoss"}).criterion, BCELoss)
    assert criterion(AFF, class_balancing={"aff": True}).class_balancing
    assert not criterion(AFF, class_balancing={"mit": True}).class_balancing


def test_balanced_classes_weigh_the_same_however_rare_one_is():
    """One voxel of eight is positive: it weighs 7/8, each of the others 1/8, and the halves add up to the same."""
    target = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0]).reshape(1, 1, 2, 2, 2)
    mask, logits = torch.ones_like(target), torch.zeros_like(target)
    made = criterion(MIT, class_balancing={"mit": True})
    assert isinstance(made, BalancedLoss)
    loss, count = made(logits, target, mask)
    assert float(loss) == pytest.approx(2 * 7 / 8 * math.log(2))
    assert int(count) == 8
    halves = [made(part, t, m, made.classes(target, mask))[0] for part, t, m in zip(
        logits.chunk(2, 2), target.chunk(2, 2), mask.chunk(2, 2), strict=True)]  # fmt: skip
    assert float(sum(halves)) == pytest.approx(float(loss))
    alone, _ = made(logits, torch.zeros_like(target), mask)
    assert float(alone) == pytest.approx(8 * math.log(2))  # one class stays as it is


def test_classes_that_exclude_each_other_have_no_margins_of_their_own():
    (sem,) = choose(["sem"], channels={"sem": 3})
    with pytest.raises(InputError, match=r"--margin0: got sem=0\.1"):
        criterion(sem, margin0={"sem": 0.1})
    assert criterion(sem, class_balancing={"sem": True}).class_balancing
