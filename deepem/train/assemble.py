"""A run: its parts put together, and where it goes on from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepem import option
from deepem.data.loader import batches, generator
from deepem.train import device, guard, parts, weights
from deepem.train.experiment import Experiment
from deepem.train.option import Options, folder
from deepem.train.ranks import Ranks
from deepem.train.schedule import Schedule
from deepem.train.step import Objective, Parts, WithLosses, has_losses, in_groups, optimizer
from deepem.utils import checkpoint
from deepem.utils.convolution import quicken
from deepem.utils.errors import InputError

LOSS = ("loss", "size_average", "margin0", "margin1", "inverse", "class_balancing", "default_aux")
OPTIMISER = ("lr", "betas", "eps", "amsgrad", "momentum")
DEVICE = ("tf32", "cudnn_benchmark", "deterministic")


class Run:
    """All that the loop needs. Making one reads everything that a run reads and writes nothing.

    Attributes:
        network: The network itself, whose state is saved.
        model: What is called in training: the network, compiled and together with that of the other ranks.
        start: Optimiser steps that were done before.
        resumed: The checkpoint that the run goes on from, if any.
        notes: Lines to tell when the run begins.
    """

    def __init__(self, options: Options) -> None:
        self.options, self.ranks, self.notes = options, Ranks(options["rank_timeout"]), list[str]()
        self.device = self._device()
        device.settle(self.device, **{name: options[name] for name in DEVICE})
        self.tasks = option.chosen_tasks(options)
        parts.set_sizes(options, self.tasks)
        require_divisible(options, self.ranks.world)
        self.data = parts.data(options, self.tasks)
        options |= {"train_ids": self.data.train_ids, "val_ids": self.data.val_ids}
        self.network = self._network()
        self._still = weights.freeze(self.network, options["freeze"] or ())
        auxiliary = getattr(self.network, "auxiliary", None)
        own = has_losses(self.network)
        self.objective = Objective(self.tasks, options, {name: options[name] for name in LOSS}, auxiliary, own)
        if own and options["size_average"] and options["accumulate"] > 1:
            raise InputError("--accumulate", options["accumulate"], "1: --model counts its losses itself, part by part")
        groups = weights.groups(self.network, options["lr_scale"] or (), options["weight_decay"])
        self.optimizer = optimizer(options["optim"], groups, **{name: options[name] for name in OPTIMISER})
        self.schedule = schedule(options)
        self.precision = device.Precision(self.device, options["amp"])
        self.modify = parts.modifier(options)
        self.experiment = Experiment(folder(options), options)
        self.guard = guard.Guard(self.network, options["skip_nan"], self.experiment.folder / "nan", self.ranks)
        self.resumed = self.experiment.resume(options["chkpt_num"])
        self.start = self._restore()
        self.ranks.join(self.device)
        called = WithLosses(self.network) if own else self.network
        self.model = self.ranks.together(called, self.device, options["sync_bn"])
        if options["compile"]:
            self.model = torch.compile(self.model)  # type: ignore[assignment]
        self._drawn = Counter[str]((self.resumed or {}).get("drawn", {}))

    def _device(self) -> torch.device:
        """The device of this process, and the defaults that are best on it."""
        gpus, cpu, ranks = self.options["gpu_ids"], self.options["cpu"], self.ranks
        if gpus and ranks.local >= len(gpus):
            raise InputError("--gpu_ids", f"{len(gpus)} of them", "one for each process on this machine, or none named")
        gpu = gpus[ranks.local] if gpus else ranks.local if ranks.world > 1 and torch.cuda.is_available() else None
        found = torch.device(option.device(gpu, cpu))
        if self.options["sync_bn"] and ranks.world > 1 and found.type == "cpu":
            raise InputError("--sync_bn", "the CPU", "GPUs: elsewhere there is no synchronised batch norm")
        if self.options["amp"] == "auto":
            self.options["amp"] = "bf16" if option.has_fast_bf16(found.type) else "off"
        if self.options["channels_last"] is None:
            # not in float32 on a CPU: torch sums the gradients of a batch norm less exactly there, 1e-2 off, not 1e-3
            self.options["channels_last"] = found.type == "cuda" or self.options["amp"] == "bf16"
        return found

    def _network(self) -> nn.Module:
        network = parts.network(self.options, self.tasks, self.data.channels)
        if self.options["deterministic"]:
            network = device.made_deterministic(network)
        last = torch.channels_last_3d if self.options["channels_last"] else torch.preserve_format
        network.to(self.device, memory_format=last)  # type: ignore[call-overload]
        quicken(network)
        return network

    def _restore(self) -> int:
        state, pretrain, decay = self.resumed, self.options["pretrain"], self.options["ema"]
        if state is None and pretrain:
            self.notes.append(weights.pretrain(self.network, pretrain))
        if state is not None:
            checkpoint.load_weights(self.network, state["state_dict"], self.experiment.source)
            if lacking := [key for key in ("iter", "optimizer") if key not in state]:
                wants = "a whole one, or --pretrain to take its weights alone"
                raise InputError(self.experiment.source, f"a checkpoint without {' and '.join(lacking)}", wants)
            self._restore_optimizer(state)
            self.precision.scaler.load_state_dict(state.get("scaler", {}))
            self.guard.skipped = state.get("skipped", 0)
        self.ema = weights.Average(self.network, decay) if decay else None
        if self.ema is not None and state is not None and "ema" in state:
            self.ema.load(state["ema"])
        return 0 if state is None else int(state["iter"])

    def _restore_optimizer(self, state: checkpoint.State) -> None:
        saved = state["optimizer"]
        if "options" not in state:  # of the public program: the flags are those of this command line
            saved = in_groups(saved, self.optimizer, [*self.network.parameters()], self.experiment.source)
        self.optimizer.load_state_dict(saved)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds besides the options: all that exact resume needs.

        Random numbers are not in it: those of samples, modifiers and the network are functions of the iteration.
        """
        own = {
            "state_dict": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.precision.scaler.state_dict(),
            "skipped": self.guard.skipped,
            "drawn": dict(self._drawn),
            "spec": parts.specs(self.options, self.tasks, self.data.channels),
        }
        return own if self.ema is None else own | {"ema": self.ema.state}

    @property
    def averages(self) -> Mapping[str, list[float]]:
        """The sums of losses that the checkpoint was written with, towards the next row of the log."""
        return {} if self.resumed is None or not self.ranks.leads else self.resumed.get("averages", {})

    def settle(self, lines: Sequence[str]) -> None:
        """Make the folder ready: from here on files are written."""
        if self.ranks.leads:
            size = sum(p.numel() * p.element_size() for p in self.network.parameters())
            self.experiment.begin(self.start, lines, 5 * size)  # weights, two moments, perhaps the average, and some

    def plan(self) -> list[str]:
        """What is to be told before the first step."""
        how = f"{self.device} in {str(self.precision.dtype).removeprefix('torch.')}"
        what = f"iterations {self.start} to {self.options['max_iter']} on {how}"
        if self.start >= self.options["max_iter"]:
            what = f"complete with iteration {self.start}; a larger --max_iter than {self.options['max_iter']} goes on"
        return [*self.notes, f"{self.experiment.folder}: {what}"]

    def evaluation_is_missing(self) -> bool:
        """Whether the run stopped before the evaluation that was due."""
        due = self.start > 0 and self.start % self.options["eval_intv"] == 0
        missing = due and self.ranks.leads and not self.experiment.evaluated(self.start)
        return self.ranks.any(missing, self.device)

    def leave(self) -> None:
        """Part from the other ranks.

        What averages gradients goes first: if it were the last to hold on to the processes' group, taking the group
        apart would wait for a thread of gloo that waits for this one (the GIL), now and then for ever.
        """
        self.model = self.network
        self.ranks.leave()

    def training(self, mode: bool = True) -> None:
        """Put the network into train or eval mode; frozen normalisations stay in eval mode."""
        self.model.train(mode)
        for norm in self._still:
            norm.eval()

    def begin(self, iteration: int) -> None:
        """Set what depends on the iteration alone: the learning rate, and the network's random numbers (dropout)."""
        factor = self.schedule(iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options["lr"] * group.get("scale", 1.0) * factor
        seeds = np.random.SeedSequence([self.options["seed"], iteration, self.ranks.rank])
        device.seed(self.device, int(seeds.generate_state(1, np.uint64)[0]))
        self.guard.remember()
        self.optimizer.zero_grad(set_to_none=True)

    def laid_out(self, image: Tensor) -> Tensor:
        """An image in the memory format of the network."""
        last = self.options["channels_last"]
        return image.contiguous(memory_format=torch.channels_last_3d) if last else image

    def pieces(self, batch: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
        """A batch in the parts whose gradients are added up one after the other."""
        count = self.options["accumulate"]
        split = {key: value.chunk(count) for key, value in batch.items()}
        return [{key: values[i] for key, values in split.items()} for i in range(count)]

    def counts(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """What means are taken over where a loss sees a part of the batch: the counts over all ranks and parts."""
        if not self.objective.average or self.ranks.world == self.options["accumulate"] == 1:
            return None
        return {name: self.ranks.sum(count) for name, count in self.objective.counts(batch).items()}

    def counts_of(self, losses: Parts) -> dict[str, Tensor]:
        """The counts that a network gave beside its own losses, over all ranks."""
        return {name: self.ranks.sum(count.clone()) for name, (_, count) in losses.items()}

    def classes(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """How much there is of each class over all ranks and parts, where a loss balances classes and sees but one."""
        if self.ranks.world == self.options["accumulate"] == 1:
            return {}
        return {name: self.ranks.sum(sums) for name, sums in self.objective.classes(batch).items()}

    def synchronising(self, last: bool) -> AbstractContextManager[Any]:
        """Around forward and backward of a part: gradients are averaged over the ranks in the last one."""
        parallel: Any = getattr(self.model, "_orig_mod", self.model)  # as it is before it is compiled
        return nullcontext() if last or self.ranks.world == 1 else parallel.no_sync()

    def gradient_norm(self) -> Tensor:
        """The norm of the gradient, after which it is no longer than `--clip`."""
        self.precision.scaler.unscale_(self.optimizer)
        trained = [p for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if self.options["clip"]:
            torch.nn.utils.clip_grads_with_norm_(trained, self.options["clip"], norm)
        return norm

    def step(self, iteration: int, loss: Tensor, norm: Tensor) -> bool:
        """Change the weights, unless loss or gradient is not finite, and tell whether the step counts."""
        taken = self.guard.step(self.optimizer, self.precision.scaler, loss, norm)
        if taken and self.ema is not None:
            self.ema.update(iteration)
        return taken

    def skip(self, iteration: int, batch: Mapping[str, Tensor], losses: Parts, norm: Tensor) -> None:
        """Leave the weights as they are, and write down why."""
        self.precision.scaler.update()
        values = {name: (loss / torch.as_tensor(count).clamp(min=1)).item() for name, (loss, count) in losses.items()}
        size, seed = self.options["batch_size"], self.options["seed"]
        indices = range((iteration - 1) * size + self.ranks.rank, iteration * size, self.ranks.world)
        facts = {
            "samples": guard.samples(self.data.train, seed, indices, generator),
            "values": values | {"gradient": norm.item()},
            "channels": self.data.channels,
            "options": self.experiment.options,
        }
        self.guard.skip(iteration, facts, batch)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """The network as it is evaluated: the average of its weights if there is one, eval mode unless --no_eval."""
        self.guard.remember()
        self.training(self.options["no_eval"])
        with torch.no_grad(), nullcontext() if self.ema is None else self.ema.applied():
            yield
        self.guard.restore()
        self.training()

    def modified(self, batch: dict[str, Tensor], iteration: int) -> dict[str, Tensor]:
        """A batch as the modifier leaves it, if there is one; its random numbers are a function of the iteration."""
        if self.modify is None:
            return batch
        own = {key: value.contiguous() for key, value in batch.items()}  # constants too can be written into
        changed = self.modify(own, generator(self.options["seed"], "modifier", iteration))
        return own if changed is None else changed

    def figures(self, iteration: int, norm: Tensor) -> dict[str, float]:
        """What a row of the log tells besides losses."""
        skipped = {"skipped": float(self.guard.skipped)} if self.guard.skipped else {}
        length = {"grad_norm": norm.item()} if norm.isfinite() else {}  # half precision may overflow on its way
        return {"lr": self.options["lr"] * self.schedule(iteration), **length, **skipped, **self.drawn(iteration)}

    def drawn(self, iteration: int) -> dict[str, float]:
        """Share of the samples up to an iteration that came from each volume, and the probability that it has.

        Nothing if the sampler cannot tell.

        Which volume a sample comes from is its first draw, so it is drawn again here, where no worker need tell.
        """
        if not hasattr(self.data.train, "which") or not self.ranks.leads:
            return {}
        size, seed = self.options["batch_size"], self.options["seed"]
        for index in range(sum(self._drawn.values()), iteration * size):
            self._drawn[self.data.train.which(generator(seed, "train", index))] += 1
        asked = getattr(self.data.train, "probabilities", {})
        shares = {f"drawn/{name}": self._drawn[name] / (iteration * size) for name in asked or self._drawn}
        return shares | {f"asked/{name}": probability for name, probability in asked.items()}

    def batches(self, phase: str, first: int, last: int) -> device.Arriving:
        """Batches first, ..., last - 1 of 'train' or 'val', this rank's share of each, on the device."""
        made = batches(
            self.data.train if phase == "train" else self.data.val,
            seed=self.options["seed"],
            phase=phase,
            start=first,
            stop=last,
            batch_size=self.options["batch_size"],
            num_workers=self.options["num_workers"],
            rank=self.ranks.rank,
            world=self.ranks.world,
            pin_memory=self.device.type == "cuda",
            worker_timeout=self.options["worker_timeout"],
        )
        images, _ = parts.specs(self.options, self.tasks, self.data.channels)
        return device.Arriving(made, self.device, images)


def require_divisible(options: Mapping[str, Any], world: int) -> None:
    """Refuse a batch that cannot be divided among processes and parts."""
    size, parts_ = options["batch_size"], options["accumulate"]
    if size % (world * parts_):
        shares = [f"{world} processes"] * (world > 1) + [f"--accumulate {parts_}"] * (parts_ > 1)
        raise InputError("--batch_size", size, f"a multiple of {world * parts_}: {' times '.join(shares)}")


def schedule(options: Mapping[str, Any]) -> Schedule:
    """The course of the learning rate."""
    until = options["lr_until"] or options["max_iter"]
    steps: Sequence[int] = options["lr_steps"] or ()
    return Schedule(
        options["lr_schedule"], options["lr_warmup"], until, tuple(steps), options["lr_gamma"], options["lr_power"]
    )
