"""The first batch through the network, before a run writes anything: what cannot be trained is bad input."""

from __future__ import annotations

from dataclasses import replace

from deepem.train import given
from deepem.train.inputs import Batch
from deepem.train.trainer import Trainer


def try_out(trainer: Trainer, batch: Batch) -> None:
    """One forward pass in train mode. It changes nothing: statistics of norms are put back.

    Raises:
        InputError: the model gives something else than logits for every head, its norms have a single value to work
            with, or it cannot be compiled here.
    """
    where, outputs = f"--model {trainer.record['options']['model']}", trainer.record["spec"][1]
    trainer.train_mode()
    trainer.begin(trainer.completed + 1)
    share = replace(trainer.shares(batch)[0], last=False)  # no gradients will come that the ranks could exchange
    with given.first_pass(trainer.settings.compiled), trainer.synchronising(share):
        found = trainer.forward(share.batch)
    if trainer.objective.own:
        given.require_losses(found.own, where)
        outputs = {name: shape for name, shape in outputs.items() if name in found.logits}
    given.require_logits(found.logits, outputs, share.batch, where)
    trainer.back_to_completed()
