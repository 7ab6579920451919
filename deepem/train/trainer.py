"""The trainer: the network and all that changes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepem.tasks import Task
from deepem.train import device as devices
from deepem.train import weights
from deepem.train.guard import Guard
from deepem.train.objective import Batch, Losses, Objective, Outputs, WithLosses
from deepem.train.optimiser import in_groups, regrouped
from deepem.train.ranks import Ranks
from deepem.train.render import Picture, pictures
from deepem.train.schedule import Schedule
from deepem.train.shares import Division, Share
from deepem.train.sync_norm import synchronise
from deepem.train.used import UsedWeights
from deepem.utils import checkpoint, checkpoint_contents
from deepem.utils.errors import InputError
from deepem.utils.geometry import Vec3


@dataclass(frozen=True)
class Settings:
    """How the trainer computes, apart from what it owns.

    Attributes:
        seed: With the iteration, decides the network's random numbers.
        lr: Learning rate before the schedule.
        clip: The gradient norm is clipped to this; 0 turns clipping off.
        accumulate: A batch is computed in so many shares.
        channels_last: Images lie in memory with the channels of a voxel side by side.
        eval_mode: Evaluation runs the network in eval mode.
        compiled: The network is compiled.
        sync_bn: Batch norm is computed over all ranks.
        factor: Voxels of the outputs per voxel of the input, (z, y, x).
    """

    seed: int
    lr: float
    clip: float
    accumulate: int
    channels_last: bool
    eval_mode: bool
    compiled: bool
    sync_bn: bool
    factor: Vec3 = (1, 1, 1)


class Trainer:
    """Owns the network, its objective, optimiser, precision, the weights to use, and the guard against NaN.

    Args:
        network: On the device.
        objective: What is minimised.
        optimizer: Changes the weights.
        schedule: The factor on the learning rate, by iteration.
        precision: Mixed precision and its gradient scale.
        used: The weights that are used.
        guard: Keeps steps that are not finite from the weights.
        ranks: The processes that train together.
        tasks: The chosen rows, for pictures.
        settings: How to compute.
        record: What checkpoints say of the run, in plain types.
        frozen_norms: Fully frozen normalisation layers, which stay in eval mode.

    Attributes:
        iteration: Optimiser steps done; within a step, its number.
        completed: Optimiser steps that are behind, those that were skipped included.
        model: What is called: the network, compiled and joined with that of the other ranks.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        precision: devices.Precision,
        used: UsedWeights,
        guard: Guard,
        ranks: Ranks,
        tasks: Sequence[Task],
        settings: Settings,
        record: Mapping[str, Any],
        frozen_norms: Sequence[nn.Module] = (),
    ) -> None:
        self.network, self.objective, self.optimizer, self.schedule = network, objective, optimizer, schedule
        self.precision, self.used, self.guard, self.ranks = precision, used, guard, ranks
        self.tasks, self.settings, self.record, self.frozen_norms = tasks, settings, record, frozen_norms
        self.device = precision.device
        self.division = Division(objective, ranks, settings.accumulate)
        self.iteration = self.completed = 0
        self.model: nn.Module = network
        self._loss = self._norm = torch.zeros(())

    def join(self) -> None:
        """Meet the other ranks, and compile."""
        self.ranks.join(self.device)
        if self.settings.sync_bn and self.ranks.world > 1:
            synchronise(self.network, self.device, self.frozen_norms)
        self.model = self.ranks.together(self._called(), self.device)
        if self.settings.compiled:
            self.model = torch.compile(self.model)  # type: ignore[assignment]

    def _called(self) -> nn.Module:
        """What is called with a batch, in this process alone."""
        return WithLosses(self.network) if self.objective.own else self.network

    def leave(self) -> None:
        """Part from the other ranks.

        DDP must go first. If it were the last to hold the process group, destroying the group would wait for a thread
        of gloo that in turn waits for the GIL, now and then for ever.
        """
        self.model = self.network
        self.ranks.leave()

    def train_mode(self, mode: bool = True) -> None:
        """Put the network into train or eval mode. Fully frozen norm layers stay in eval mode."""
        self.model.train(mode)
        for norm in self.frozen_norms:
            norm.eval()

    def begin(self, iteration: int) -> None:
        """Begin a step: set its learning rate and the network's random numbers (dropout)."""
        self.iteration = iteration
        self.used.changed()
        factor = self.schedule(iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * group.get("scale", 1.0) * factor
        self._seed(iteration)
        self.guard.remember()
        self._loss = torch.zeros((), device=self.device)

    def _seed(self, iteration: int) -> None:
        seeds = np.random.SeedSequence([self.settings.seed, iteration, self.ranks.rank])
        devices.seed(self.device, int(seeds.generate_state(1, np.uint64)[0]))

    def shares(self, batch: Batch) -> list[Share]:
        """A batch in the shares whose gradients are added up one after the other."""
        return self.division.shares(batch)

    def whole(self, batch: Batch) -> Share:
        """A batch as a single share."""
        return self.division.whole(batch)

    def synchronising(self, share: Share) -> AbstractContextManager[Any]:
        """Wrap forward and backward of a share: gradients are averaged over the ranks in the last share of a batch."""
        parallel: Any = getattr(self.model, "_orig_mod", self.model)  # the module inside torch.compile
        return nullcontext() if share.last or self.ranks.world == 1 else parallel.no_sync()

    def forward(self, batch: Batch, model: nn.Module | None = None) -> Outputs:
        """One forward pass in the run's precision, of the model that is trained or another."""
        batch = {**batch, "input": self._laid_out(batch["input"])}
        model = self.model if model is None else model
        with self.precision.autocast():
            if not self.objective.own:
                return Outputs(model(batch["input"]))
            own, logits = model(batch)
            return Outputs(logits, own)

    def _laid_out(self, image: Tensor) -> Tensor:
        """An image in the memory format of the network."""
        last = self.settings.channels_last
        return image.contiguous(memory_format=torch.channels_last_3d) if last else image

    def losses(self, outputs: Outputs, share: Share) -> Losses:
        """The unweighted losses of a share."""
        return self.objective.losses(outputs, share.batch, share.totals)

    def weighted_sum(self, losses: Losses, share: Share) -> Tensor:
        """What is minimised."""
        counts = share.totals.counts
        if self.objective.own:  # the network counts, share by share
            counts = {name: self.ranks.sum(count.clone()) for name, (_, count) in losses.items()}
        return self.objective.weighted_sum(losses, counts)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a share's loss to the parameters' gradients."""
        self.precision.scaler.scale(loss * self.ranks.world).backward()  # DDP takes the mean over the ranks
        self._loss += loss.detach()

    def clip_gradients(self) -> None:
        """Measure the norm of the gradient, and clip it where clipping is on."""
        self.precision.scaler.unscale_(self.optimizer)
        trained = [p for p in self.network.parameters() if p.grad is not None]
        self._norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if self.settings.clip:
            torch.nn.utils.clip_grads_with_norm_(trained, self.settings.clip, self._norm)

    def step(self) -> bool:
        """Change the weights, unless loss or gradient is not finite. Returns whether the step counts."""
        taken = self.guard.step(self.optimizer, self.precision.scaler, self._loss, self._norm)
        if taken:
            self.used.follow(self.iteration)
        return taken

    def skip(self, batch: Batch, losses: Losses, samples: Sequence[Mapping[str, Any]]) -> None:
        """Leave the weights as they are, and write down why.

        Raises:
            InputError: more steps were skipped than are allowed.
        """
        self.precision.scaler.update()
        values = {name: (loss / torch.as_tensor(count).clamp(min=1)).item() for name, (loss, count) in losses.items()}
        facts = {**self.record, "samples": list(samples), "values": values | {"gradient": self._norm.item()}}
        self.guard.skip(self.iteration, facts, batch)

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Take the batch-norm statistics of the weights that are used anew, over some batches.

        Each share of a batch is a pass, as in training. All ranks call it alike, and get the same statistics.
        """
        called = self._called()
        passes = (partial(self.forward, part, called) for batch in batches for part in self.division.parts(batch))
        self.used.calibrate(passes, self.ranks.sum)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The network as it is used, in eval mode unless --no_eval."""
        self.guard.remember()
        self._seed(0)  # networks that draw what they train on draw the same in every evaluation
        self.train_mode(not self.settings.eval_mode)
        with torch.no_grad(), self.used.applied():
            try:
                yield
            finally:
                self.guard.restore()
        self.train_mode()

    def pictures(self, batch: Batch, outputs: Outputs) -> dict[str, Picture]:
        """Pictures of a batch and its outputs. A network with losses of its own is called once more for its logits."""
        logits = outputs.logits
        if self.objective.own:
            with self.evaluating(), self.precision.autocast():
                logits = self.network(self._laid_out(batch["input"]))
        drawn = [task for task in self.tasks if task.name in logits]
        return pictures(drawn, batch, logits, self.settings.factor)

    def figures(self) -> dict[str, float]:
        """What a row of the log tells of the last step besides losses."""
        skipped = {"skipped": float(self.guard.skipped)} if self.guard.skipped else {}
        norm = {"grad_norm": self._norm.item()} if self._norm.isfinite() else {}  # half precision may overflow
        return {"lr": self.settings.lr * self.schedule(self.iteration), **norm, **skipped}

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the trainer: all that exact resume needs, and the weights to use.

        No random numbers: those of samples, modifiers and the network are functions of the iteration.
        """
        own = {
            **self.record,
            "state_dict": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "skipped": self.guard.skipped,
        }
        return own | self.used.state()

    def restore(self, state: Mapping[str, Any], source: object) -> None:
        """Go on from the state of a checkpoint.

        Raises:
            InputError: it is of another architecture or optimiser, or holds weights alone.
        """
        checkpoint.load_weights(self.network, state["state_dict"], source)
        if lacking := [key for key in ("iter", "optimizer") if key not in state]:
            wants = "a whole one, or --pretrain to take its weights alone"
            raise InputError(source, f"a checkpoint without {' and '.join(lacking)}", wants)
        saved = state["optimizer"]
        if "options" not in state:  # of the public DeepEM, whose optimiser has a single group
            saved = in_groups(saved, self.optimizer, [*self.network.parameters()], source)
        elif (before := _groups_before(self.network, state["options"], self.record["options"])) is not None:
            names = {id(parameter): name for name, parameter in self.network.named_parameters()}
            saved = regrouped(saved, before, self.optimizer, names)
        checkpoint_contents.check_optimiser(saved, self.optimizer, source)
        self.optimizer.load_state_dict(saved)
        self.precision.scaler.load_state_dict(state.get("scaler", {}))
        self.guard.skipped = state.get("skipped", 0)
        self.used.restore(state)
        self.iteration = self.completed = int(state["iter"])

    def back_to_completed(self) -> None:
        """Undo what an unfinished step changed: the statistics of batch norms, and its number."""
        if self.iteration > self.completed:
            self.guard.restore()
            self.iteration = self.completed


def _groups_before(network: nn.Module, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[list[str]] | None:
    """The groups of the optimiser of a checkpoint, by names, if --freeze or --lr_scale have changed since."""
    if all(before.get(name) == now.get(name) for name in ("freeze", "lr_scale")):
        return None
    scales = [(name, factor) for name, factor in before.get("lr_scale") or ()]
    return weights.names_of_groups(network, before.get("freeze") or (), scales, before.get("weight_decay", 0.0))
