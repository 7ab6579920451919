"""The trainer: the network and all that changes it during training."""

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
from deepem.train.profiler import stage
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
    """How the trainer computes.

    Attributes:
        seed: With the iteration, it determines the random numbers of the network.
        lr: Learning rate before the schedule.
        clip: The gradient norm is clipped to this; 0 turns clipping off.
        accumulate: The number of shares that each batch is split into, for gradient accumulation.
        channels_last: Whether images are stored in the channels-last memory format.
        eval_mode: Whether evaluation runs the network in eval mode.
        compiled: Whether the network is compiled.
        sync_bn: Whether batch norm is computed over all ranks.
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
    """Owns the network, objective, optimiser, precision, evaluation weights, and the guard against NaN.

    Args:
        network: The network, already on the device.
        objective: The training objective.
        optimizer: The optimiser.
        schedule: The factor on the learning rate, by iteration.
        precision: Mixed precision and its gradient scale.
        used: The weights that evaluation and inference use.
        guard: Skips steps whose loss or gradient is not finite.
        ranks: The processes that train together.
        tasks: The chosen tasks, for pictures.
        settings: How to compute.
        record: What checkpoints store about the run, in plain types.
        frozen_norms: Fully frozen normalisation layers, which stay in eval mode.

    Attributes:
        iteration: Number of optimiser steps done; during a step, the number of that step.
        completed: Number of optimiser steps completed, skipped ones included.
        division: Splits a batch into shares.
        model: The network as it is called: compiled, and wrapped in DDP if there are several ranks.
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
        self._parameters = [*network.parameters()]
        self._loss = self._norm = torch.zeros(())

    def join(self) -> None:
        """Join the other ranks, and compile the network."""
        self.ranks.join(self.device)
        if self.settings.sync_bn and self.ranks.world > 1:
            synchronise(self.network, self.device, self.frozen_norms)
        self.model = self.ranks.together(self._called(), self.device)
        if self.settings.compiled:
            self.model = torch.compile(self.model)  # type: ignore[assignment]

    def _called(self) -> nn.Module:
        """Return the module to call with a batch, without DDP and torch.compile."""
        return WithLosses(self.network) if self.objective.own else self.network

    def leave(self) -> None:
        """Leave the process group.

        DDP must be deleted first. If DDP held the last reference to the process group, destroying the group could wait
        for ever for a gloo thread that in turn waits for the GIL.
        """
        self.model = self.network
        self.ranks.leave()

    def train_mode(self, mode: bool = True) -> None:
        """Put the network into train or eval mode. Fully frozen norm layers stay in eval mode."""
        self.model.train(mode)
        for norm in self.frozen_norms:
            norm.eval()

    @stage("begin")
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

    def synchronising(self, share: Share) -> AbstractContextManager[Any]:
        """Wrap forward and backward of a share: only the last share of a batch averages gradients over the ranks."""
        parallel: Any = getattr(self.model, "_orig_mod", self.model)  # unwrap torch.compile
        return nullcontext() if share.last or self.ranks.world == 1 else parallel.no_sync()

    @stage("forward")
    def forward(self, batch: Batch, model: nn.Module | None = None) -> Outputs:
        """Run one forward pass in the run's precision, with the trained model or another."""
        batch = {**batch, "input": self._laid_out(batch["input"])}
        model = self.model if model is None else model
        with self.precision.autocast():
            if not self.objective.own:
                return Outputs(model(batch["input"]))
            own, logits = model(batch)
            return Outputs(logits, own)

    def _laid_out(self, image: Tensor) -> Tensor:
        """Convert an image to the memory format of the network."""
        last = self.settings.channels_last
        return image.contiguous(memory_format=torch.channels_last_3d) if last else image

    @stage("losses")
    def losses(self, outputs: Outputs, share: Share) -> Losses:
        """Return the unweighted losses of a share."""
        return self.objective.losses(outputs, share.batch, share.totals)

    def weighted_sum(self, losses: Losses, share: Share) -> Tensor:
        """Return the value to minimise."""
        counts = share.totals.counts
        if self.objective.own:  # the network counts its own losses, share by share
            counts = {name: self.ranks.sum(count.clone()) for name, (_, count) in losses.items()}
        return self.objective.weighted_sum(losses, counts)

    @stage("backward")
    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a share's loss to the gradients of the parameters."""
        self.precision.scaler.scale(loss * self.ranks.world).backward()  # DDP takes the mean over ranks; make it a sum
        self._loss += loss.detach()

    @stage("gradient norm")
    def clip_gradients(self) -> None:
        """Measure the gradient norm, and clip it if clipping is on."""
        self.precision.scaler.unscale_(self.optimizer)
        trained = [p for p in self._parameters if p.grad is not None]
        self._norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if self.settings.clip:
            torch.nn.utils.clip_grads_with_norm_(trained, self.settings.clip, self._norm)

    @stage("optimiser")
    def step(self) -> bool:
        """Take the optimiser step, unless loss or gradient is not finite. Returns whether the step counts."""
        taken = self.guard.step(self.optimizer, self.precision.scaler, self._loss, self._norm)
        if taken:
            self.used.follow(self.iteration)
        return taken

    def skip(self, batch: Batch, losses: Losses, samples: Sequence[Mapping[str, Any]]) -> None:
        """Skip the step: leave the weights as they are, and dump what led to it.

        Raises:
            InputError: more steps were skipped than allowed.
        """
        self.precision.scaler.update()
        values = {name: (loss / torch.as_tensor(count).clamp(min=1)).item() for name, (loss, count) in losses.items()}
        facts = {**self.record, "samples": list(samples), "values": values | {"gradient": self._norm.item()}}
        self.guard.skip(self.iteration, facts, batch)

    def calibrate(self, batches: Iterable[Batch]) -> None:
        """Recompute the batch-norm statistics of the evaluation weights, over some batches.

        Each share of a batch is one forward pass, as in training. All ranks must call this, and get the same
        statistics.
        """
        called = self._called()
        passes = (partial(self.forward, part, called) for batch in batches for part in self.division.parts(batch))
        self.used.calibrate(passes, self.ranks.sum)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Within this context, the network has the evaluation weights and is in eval mode, unless --no_eval."""
        self.guard.remember()
        self._seed(0)  # networks that sample at random draw the same samples in every evaluation
        self.train_mode(not self.settings.eval_mode)
        with torch.no_grad(), self.used.applied():
            try:
                yield
            finally:
                self.guard.restore()
        self.train_mode()

    def pictures(self, batch: Batch, outputs: Outputs) -> dict[str, Picture]:
        """Draw pictures of a batch. A network that computes its own losses runs again for its logits."""
        logits = outputs.logits
        if self.objective.own:
            with self.evaluating(), self.precision.autocast():
                logits = self.network(self._laid_out(batch["input"]))
        drawn = [task for task in self.tasks if task.name in logits]
        return pictures(drawn, batch, logits, self.settings.factor)

    def figures(self) -> dict[str, float]:
        """Return the figures of the last step, besides losses, for a row of the log."""
        skipped = {"skipped": float(self.guard.skipped)} if self.guard.skipped else {}
        norm = {"grad_norm": self._norm.item()} if self._norm.isfinite() else {}  # fp16 may overflow
        return {"lr": self.settings.lr * self.schedule(self.iteration), **norm, **skipped}

    def state(self) -> dict[str, Any]:
        """Return the trainer's part of a checkpoint: the state for an exact resume, and the evaluation weights.

        Random states are not stored: samples, modifiers and the network derive theirs from seed and iteration.
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
        """Restore the state from a checkpoint.

        Raises:
            InputError: the checkpoint has another architecture or optimiser, or holds only weights.
        """
        checkpoint.load_weights(self.network, state["state_dict"], source)
        if lacking := [key for key in ("iter", "optimizer") if key not in state]:
            wants = "a whole one, or --pretrain to take its weights alone"
            raise InputError(source, f"a checkpoint without {' and '.join(lacking)}", wants)
        saved = state["optimizer"]
        if "options" not in state:  # the public DeepEM's optimiser has a single group
            saved = in_groups(saved, self.optimizer, [*self.network.parameters()], source)
        elif (before := weights.groups_before(self.network, state["options"], self.record["options"])) is not None:
            names = {id(parameter): name for name, parameter in self.network.named_parameters()}
            saved = regrouped(saved, before, self.optimizer, names)
        checkpoint_contents.check_optimiser(saved, self.optimizer, source)
        self.optimizer.load_state_dict(saved)
        self.precision.scaler.load_state_dict(state.get("scaler", {}))
        self.guard.skipped = state.get("skipped", 0)
        self.used.restore(state)
        self.iteration = self.completed = int(state["iter"])

    def back_to_completed(self) -> None:
        """Undo what an unfinished step changed: the batch-norm statistics and the iteration number."""
        if self.iteration > self.completed:
            self.guard.restore()
            self.iteration = self.completed
