"""The batches of a run: drawn by its samplers, brought to the device, changed by its modifier."""

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
from deepem.train.ranks import Ranks
from deepem.train.transfer import DeviceBatches

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Loading:
    """How batches are drawn and loaded.

    Attributes:
        seed: Decides every sample.
        batch_size: Samples per step, over all ranks.
        num_workers: Processes that load samples.
        worker_timeout: Seconds after which a worker that makes no progress counts as hung.
    """

    seed: int
    batch_size: int
    num_workers: int
    worker_timeout: float


class Inputs:
    """The batches of a run. The stream of batches depends on the seed and the iteration alone.

    Args:
        samplers: Where samples come from.
        loading: How they are drawn and loaded.
        modify: Changes training batches on the device; its random numbers are a function of the iteration.
        ranks: The processes that share each batch.
        device: Where batches go.
        images: The keys of grey values.

    Attributes:
        waited: Seconds that the device had nothing to do for want of the last batch.
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
        """Begin the stream of training batches and draw the first: what cannot be drawn is bad input.

        Args:
            first: The first iteration.
            last: The last iteration. With none to do, nothing is drawn.
            give_up: Asked while a batch is waited for: whether to wait no longer.
            look: Called with the kind of plug-in and what it gave: the first batch as drawn, and as modified.
        """
        self._give_up = give_up
        self._stream = self._batches("train", first - 1, last)
        drawn = next(self._stream, None)
        if drawn is not None:
            look("sampler", drawn)
            self._first = self._modified(drawn, first)
            look("modifier", self._first)

    def next_batch(self, iteration: int) -> Batch:
        """The batch of an iteration, this rank's share of it, on the device and modified."""
        assert self._stream is not None, "start first"
        if self._first is not None:
            batch, self._first, self.waited = self._first, None, 0.0
            return batch
        batch = next(self._stream)
        self.waited = self._stream.waited
        return self._modified(batch, iteration)

    def prefetch(self) -> None:
        """Take the next batch from the loader and send it to the device, without waiting for it there."""
        assert self._stream is not None, "start first"
        self._stream.fetch()

    @property
    def first(self) -> Batch | None:
        """The first batch, until it is taken."""
        return self._first

    @property
    def evaluates(self) -> bool:
        """Whether there is an evaluation set."""
        return self.samplers.val is not None

    def evaluation(self, samples: int) -> Iterator[Batch]:
        """The batches of an evaluation, the same every time."""
        return self._batches("val", 0, -(-samples // self.loading.batch_size))

    def calibration(self, samples: int) -> Iterator[Batch]:
        """Batches as in training, of a stream of their own, the same every time."""
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
        own = {key: value.contiguous() for key, value in batch.items()}  # a modifier may write into constants too
        changed: Batch | None = self.modify(own, generator(self.loading.seed, stream, number))
        return own if changed is None else changed

    def samples_of(self, iteration: int) -> list[dict[str, Any]]:
        """What is known of this rank's samples in an iteration: index, seed, volume and location."""
        size = self.loading.batch_size
        indices = range((iteration - 1) * size + self.ranks.rank, iteration * size, self.ranks.world)
        return guard.samples(self.samplers.train, self.loading.seed, indices, generator)

    def drawn(self, iteration: int) -> dict[str, float]:
        """Share of the samples so far that came from each volume, and from each member of one that is a superset.

        Beside it stands the probability that was asked for.

        Nothing if the sampler cannot tell. Which volume a sample comes from is its first random draw, so it is drawn
        again here, and no worker has to report it.
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
        """What a checkpoint holds of the inputs. The stream itself needs nothing: it is a function of the iteration."""
        return {"drawn": dict(self._drawn)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of a checkpoint."""
        self._drawn = Counter[str](state.get("drawn", {}))


def _within(volume: str, name: str) -> bool:
    """Whether a volume is the one of that name, or a member of it."""
    return volume == name or volume.startswith(f"{name}/")
