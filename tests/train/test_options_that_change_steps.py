"""Options that change how a step is taken: each does what it says, and resumes exactly."""

from __future__ import annotations

import pytest
import torch

from deepem.utils import checkpoint


def gradient(lab, name, *more):
    """The gradient of the first step, from the momentum of plain SGD; its length is not lost in the weights."""
    lab.train(name, "--max_iter", 1, "--optim", "SGD", "--lr", "1e-9", *more)
    state = lab.state(name, 1)["optimizer"]["state"]
    return torch.cat([entry["momentum_buffer"].flatten() for entry in state.values()])


@pytest.mark.parametrize("average", [(), ("--size_average",), ("--class_balancing",)])
def test_a_batch_in_parts_has_the_gradient_of_the_batch(lab, average):
    whole = gradient(lab, "whole", "--batch_size", 4, "--norm", "group", *average)
    parts = gradient(lab, "parts", "--batch_size", 4, "--accumulate", 2, "--norm", "group", *average)
    assert torch.allclose(whole, parts, rtol=1e-6, atol=1e-6 * float(whole.abs().max()))
    assert lab.rows("whole")[0]["affinity"] == pytest.approx(lab.rows("parts")[0]["affinity"], rel=1e-6)


def test_a_batch_that_cannot_be_divided_is_refused(lab, capsys):
    assert lab.fails("run", "--max_iter", 1, "--batch_size", 3, "--accumulate", 2) == 2
    assert "--batch_size: got 3, wants a multiple of 2: --accumulate 2" in capsys.readouterr().err


def test_clipping_shortens_the_gradient_and_keeps_its_direction(lab):
    free, clipped = gradient(lab, "free"), gradient(lab, "clipped", "--clip", 0.5)
    assert clipped.norm() == pytest.approx(0.5, rel=1e-5)
    assert torch.allclose(clipped / clipped.norm(), free / free.norm(), atol=1e-6)
    assert lab.rows("clipped")[0]["grad_norm"] == pytest.approx(float(free.norm()), rel=1e-5)


def test_frozen_weights_stay(lab):
    lab.train("run", "--max_iter", 1, "--chkpt_intv", 1)
    lab.train("ice", "--max_iter", 3, "--pretrain", "experiments/run/models/model1.chkpt", "--freeze", "core")
    before, after = lab.state("run", 1)["ema"], lab.state("ice", 3)["state_dict"]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"out.{head}.{kind}" for head in ("affinity", "mitochondria") for kind in ("weight", "bias")}


def test_learning_rates_by_name_and_iteration(lab):
    lab.train("run", "--max_iter", 3, "--lr", 0.4, "--lr_scale", "core=0.5", "--lr_warmup", 4)
    assert {group["lr"] for group in lab.state("run", 3)["optimizer"]["param_groups"]} == {0.4 * 0.75, 0.2 * 0.75}
    assert [row["lr"] for row in lab.rows("run", "train")] == [0.1, 0.2, pytest.approx(0.3)]


@pytest.mark.parametrize(
    "more",
    [
        "--ema 0.9 --lr_schedule cosine --lr_warmup 2 --lr_until 7 --weight_decay 0.1",
        "--clip 1 --accumulate 2 --batch_size 2 --optim AdamW --lr_schedule step --lr_steps 3 5 --no_eval --dropout .2",
        "--amp bf16 --channels_last --ema 0.9",
    ],
)
def test_they_all_resume_exactly(lab, equal_runs, more):
    lab.train("whole", "--max_iter", 7, *more.split())
    lab.train("parts", "--max_iter", 4, *more.split())
    lab.train("parts", "--max_iter", 7, *more.split())
    equal_runs("whole", "parts", 7)


def test_a_schedule_that_ends_elsewhere_is_another_run(lab, capsys):
    lab.train("run", "--max_iter", 2, "--lr_schedule", "poly")
    assert lab.fails("run", "--max_iter", 4, "--lr_schedule", "poly") == 2
    error = capsys.readouterr().err
    assert "--lr_until was 2, is 4" in error
    hints = "--lr_until 2 keeps the course of the rate; --change lr_until if that is meant"
    assert f"wants the same ({hints}), or another --exp_name" in error
    lab.train("run", "--max_iter", 4, "--lr_schedule", "poly", "--lr_until", 2)


def test_the_newest_the_kth_and_the_best_are_kept(lab):
    more = ("--chkpt_intv", 1, "--eval_intv", 1, "--keep", 2, "--keep_every", 3)
    lab.train("run", "--max_iter", 7, *more)
    losses = {row["iter"]: row["loss"] for row in lab.rows("run", "test")}
    models = lab.models("run")
    linked = int((models / "best.chkpt").readlink().name.removeprefix("model").removesuffix(".chkpt"))
    assert set(checkpoint.numbers(models)) == {3, 6, 7, linked}
    assert losses[linked] == min(losses[number] for number in checkpoint.numbers(models))
    assert checkpoint.read(models / "best.chkpt")["iter"] == linked


def test_the_best_is_never_one_whose_loss_is_not_finite(lab):
    lab.train("run", "--max_iter", 2, "--chkpt_intv", 1)
    from deepem.runs import events
    from deepem.runs.folder import RunFolder

    logs = lab.folder / "experiments" / "run" / "logs"
    run = RunFolder(logs.parent)
    for number, loss in ((1, 2.0), (2, float("nan"))):
        events.append_row(logs / "metrics.jsonl", {"iter": number, "phase": "test", "loss": loss})
    assert run.link_best() == 1
    events.append_row(logs / "metrics.jsonl", {"iter": 1, "phase": "test", "loss": float("inf")})
    assert run.link_best() is None
    assert not (run.models / "best.chkpt").exists()
