"""The batches of a run: drawn by the samplers, copied to the device, changed by the modifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deepem.build.samplers import Samplers
from deepem.data.loader import batches, generator
from deepem.protocols import Modifier, TellsMember, TellsProbabilities, TellsVolume
from deepem.train import guard
from deepem.train.profiler import stage
from deepem.train.ranks import Ranks
from deepem.train.transfer import DeviceBatches

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Loading:
    """How batches are drawn and loaded.

    Attributes:
        seed: The seed of all samples.
        batch_size: Samples per step, over all ranks.
        num_workers: Processes that load samples.
        worker_timeout: A worker that makes no progress for this many seconds counts as hung.
    """

    seed: int
    batch_size: int
    num_workers: int
    worker_timeout: float


class Inputs:
    """The batches of a run. The stream of batches depends only on the seed and the iteration.

    Args:
        samplers: The samplers for training and evaluation.
        loading: How they are drawn and loaded.
        modify: Changes training batches on the device. Its random numbers depend only on seed and iteration.
        ranks: The processes that share each batch.
        device: The device that batches are copied to.
        images: The keys of the images (grey values) in a batch.

    Attributes:
        waited: Seconds that the device was idle while it waited for the last batch.
    """

    def __init__(
        self,
        samplers: Samplers,
        loading: Loading,
        modify: Modifier | None,
        ranks: Ranks,
        device: torch.device,
        images: tuple[str, ...] = ("input",),
    ) -> None:
        self.samplers, self.loading, self.modify = samplers, loading, modify
        self.ranks, self.device, self.images = ranks, device, images
        self.waited = 0.0
        self._drawn = Counter[str]()
        self._stream: DeviceBatches | None = None
        self._first: Batch | None = None
        self._give_up: Callable[[], bool] = lambda: False

    def start(
        self,
        first: int,
        last: int,
        give_up: Callable[[], bool] = lambda: False,
        look: Callable[[str, Any], None] = lambda kind, batch: None,
    ) -> None:
        """Start the stream of training batches and draw the first batch; a failure to draw it is reported as bad input.

        Args:
            first: The first iteration.
            last: The last iteration. If no iterations are left, nothing is drawn.
            give_up: Called while waiting for a batch; returns True to stop waiting.
            look: Called on the first batch with the kind of plug-in and its result: once as drawn, once as modified.
        """
        self._give_up = give_up
        self._stream = self._batches("train", first - 1, last)
        drawn = next(self._stream, None)
        if drawn is not None:
            look("sampler", drawn)
            self._first = self._modified(drawn, first)
            look("modifier", self._first)

    @stage("next batch")
    def next_batch(self, iteration: int) -> Batch:
        """Return this rank's share of the batch of an iteration, on the device and modified."""
        assert self._stream is not None, "start first"
        if self._first is not None:
            batch, self._first, self.waited = self._first, None, 0.0
            return batch
        batch = next(self._stream)
        self.waited = self._stream.waited
        return self._modified(batch, iteration)

    @stage("prefetch")
    def prefetch(self) -> None:
        """Take the next batch from the loader and start copying it to the device, without waiting for the copy."""
        assert self._stream is not None, "start first"
        self._stream.fetch()

    @property
    def first(self) -> Batch | None:
        """The first batch, as long as the loop has not taken it."""
        return self._first

    @property
    def evaluates(self) -> bool:
        """Whether there is an evaluation set."""
        return self.samplers.val is not None

    def evaluation(self, samples: int) -> Iterator[Batch]:
        """The batches of an evaluation, the same in every evaluation."""
        return self._batches("val", 0, -(-samples // self.loading.batch_size))

    def calibration(self, samples: int) -> Iterator[Batch]:
        """Training-like batches from a separate stream, the same in every call."""
        for number, batch in enumerate(self._batches("calibrate", 0, -(-samples // self.loading.batch_size))):
            yield self._modified(batch, number, "calibrate modifier")

    def _batches(self, phase: str, first: int, last: int) -> DeviceBatches:
        sampler = self.samplers.val if phase == "val" else self.samplers.train
        assert sampler is not None, "no evaluation set"
        made = batches(
            sampler,
            seed=self.loading.seed,
            phase=phase,
            start=first,
            stop=last,
            batch_size=self.loading.batch_size,
            num_workers=self.loading.num_workers,
            rank=self.ranks.rank,
            world=self.ranks.world,
            pin_memory=self.device.type == "cuda",
            worker_timeout=self.loading.worker_timeout,
            give_up=self._give_up,
        )
        return DeviceBatches(made, self.device, self.images)

    def _modified(self, batch: Batch, number: int, stream: str = "modifier") -> Batch:
        if self.modify is None:
            return batch
        own = {key: value.contiguous() for key, value in batch.items()}  # constants are expanded views
        changed: Batch | None = self.modify(own, generator(self.loading.seed, stream, number))
        return own if changed is None else changed

    def samples_of(self, iteration: int) -> list[dict[str, Any]]:
        """Return index, seed, volume and location of this rank's samples in an iteration."""
        size = self.loading.batch_size
        indices = range((iteration - 1) * size + self.ranks.rank, iteration * size, self.ranks.world)
        return guard.samples(self.samplers.train, self.loading.seed, indices, generator)

    def drawn(self, iteration: int) -> dict[str, float]:
        """Return the share of samples so far that came from each volume, and from each member of a superset.

        The result also holds the requested probability beside each share.

        Returns nothing if the sampler cannot tell. The choice of volume is the first random draw of a sample, so it is
        repeated here, and workers need not report it.
        """
        sampler = self.samplers.train
        if not isinstance(sampler, TellsVolume) or not self.ranks.leads:
            return {}
        which = sampler.member if isinstance(sampler, TellsMember) else sampler.which
        size, seed = self.loading.batch_size, self.loading.seed
        for index in range(sum(self._drawn.values()), iteration * size):
            self._drawn[which(generator(seed, "train", index))] += 1
        asked = sampler.probabilities if isinstance(sampler, TellsProbabilities) else {}
        counts = {name: sum(n for leaf, n in self._drawn.items() if _within(leaf, name)) for name in asked}
        shares = {f"drawn/{name}": count / (iteration * size) for name, count in (counts | self._drawn).items()}
        return shares | {f"asked/{name}": probability for name, probability in asked.items()}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint stores about the inputs. The stream itself depends only on seed and iteration."""
        return {"drawn": dict(self._drawn)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self._drawn = Counter[str](state.get("drawn", {}))


def _within(volume: str, name: str) -> bool:
    """Whether a volume has this name or is a member of the superset with this name."""
    return volume == name or volume.startswith(f"{name}/")
