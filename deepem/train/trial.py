"""Runs the first batch through the network before anything is written: a failure is reported as bad input."""

from __future__ import annotations

from dataclasses import replace

from deepem.train import given
from deepem.train.inputs import Batch
from deepem.train.trainer import Trainer


def try_out(trainer: Trainer, batch: Batch) -> None:
    """Run one forward pass in train mode, and restore the norm statistics afterwards.

    Raises:
        InputError: the model does not return logits for every head, a norm has only a single value to normalise, or the
            network cannot be compiled here.
    """
    where, outputs = f"--model {trainer.record['options']['model']}", trainer.record["spec"][1]
    trainer.train_mode()
    trainer.begin(trainer.completed + 1)
    share = replace(trainer.division.shares(batch)[0], last=False)  # without gradients, DDP has nothing to exchange
    with given.first_pass(trainer.settings.compiled), trainer.synchronising(share):
        found = trainer.forward(share.batch)
    if trainer.objective.own:
        given.require_losses(found.own, where)
        outputs = {name: shape for name, shape in outputs.items() if name in found.logits}
    given.require_logits(found.logits, outputs, share.batch, where)
    trainer.back_to_completed()
