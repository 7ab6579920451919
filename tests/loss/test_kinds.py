"""Which criterion each task is trained with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deepem.loss import AffinityLoss, BCELoss, MSELoss, criterion
from deepem.tasks import KINDS, TASKS, choose
from deepem.utils.errors import InputError

AFF, LONG, MIT = choose(["aff", "long", "mit"], edges=[(0, 0, 5), (-2, 0, 0)])


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.flag)
def test_every_task_has_a_criterion(task):
    assert criterion(task) is not None


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
