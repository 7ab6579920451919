"""Batches: the same for any number of workers, and never silence when one fails."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from lab import same

from deepem.data.loader import WorkerError, batches, generator
from deepem.data.sampler.basic import Sampler, get_spec
from deepem.data.transform import FlipRotate
from deepem.data.transform.base import Apply, Spec
from deepem.data.volume import compact
from deepem.utils.errors import InputError

SHAPE = (6, 14, 16)


def real_sampler() -> Sampler:
    rng = np.random.default_rng(0)
    data = {}
    for name, ids in (("a", np.uint32), ("b", np.int64)):
        image = rng.integers(0, 256, SHAPE, dtype=np.uint8)
        seg = rng.integers(2**24, 2**24 + 9, SHAPE).astype(ids)
        msk = rng.random(SHAPE) < 0.5
        data[name] = compact(f"m {name}", {"img": image, "seg": seg, "msk": msk, "loc": True}, ("seg", "mit"), "train")
    spec = get_spec({"input": (1, 4, 8, 8)}, {"affinity": (3, 4, 8, 8), "mitochondria": (1, 4, 8, 8)})
    return Sampler(data, spec, True, FlipRotate())


def numbers(rng: np.random.Generator) -> dict[str, Any]:
    """A sample that tells which one it is."""
    return {"input": rng.random((1, 2, 3, 4)), "ones": np.broadcast_to(np.float32(1), (1, 2, 3, 4))}


def load(sampler: Any, **options: Any) -> list[dict[str, torch.Tensor]]:
    given = {"seed": 3, "phase": "train", "start": 0, "stop": 6, "batch_size": 1, "num_workers": 0} | options
    return list(batches(sampler, **given))


@pytest.mark.parametrize(("workers", "context"), [(1, "fork"), (2, "fork"), (3, "fork"), (1, "spawn"), (2, "spawn")])
def test_the_stream_does_not_depend_on_the_workers(workers: int, context: str):
    made = real_sampler()
    alone = load(made, batch_size=2, stop=9)
    assert len(alone) == 9
    assert same(alone, load(made, batch_size=2, stop=9, num_workers=workers, context=context))


def test_a_batch_holds_its_samples():
    """Grey values as the bytes that they are in the volumes."""
    made = real_sampler()
    for i, batch in enumerate(load(made, start=5, stop=8, batch_size=3), start=5):
        for j in range(3):
            sample = made(generator(3, "train", 3 * i + j))
            assert batch["input"].dtype == torch.uint8
            for key, array in sample.items():
                value = batch[key][j].numpy() / np.float32(255) if key == "input" else batch[key][j].numpy()
                np.testing.assert_array_equal(value, array)


class Dimmed(FlipRotate):
    """Makes floats of bytes, in two samples of three."""

    def prepare(self, spec: Spec, rng: np.random.Generator) -> tuple[Spec, Apply]:
        request, apply = super().prepare(spec, rng)
        dim = rng.random() < 2 / 3

        def dimmed(sample: dict[str, Any]) -> dict[str, Any]:
            sample = apply(sample)
            return sample | {"img": sample["img"] / np.float32(300)} if dim else sample

        return request, dimmed


@pytest.mark.parametrize("batch_size", [1, 2])
def test_one_value_throughout_stays_one_value(monkeypatch: pytest.MonkeyPatch, batch_size: int):
    """In a batch of one too, and where batches are pinned, which torch refuses for memory that overlaps itself."""
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.stride()) or self.clone())
    for batch in load(numbers, batch_size=batch_size, stop=2, pin_memory=True):
        assert batch["ones"].shape == (batch_size, 1, 2, 3, 4)
        assert not any(batch["ones"].stride())
        assert bool((batch["ones"] == 1).all())
    assert pinned == [(24, 24, 12, 4, 1)] * 2


@pytest.mark.parametrize("workers", [0, 2])
def test_an_augmentation_may_make_floats_of_bytes(workers: int):
    """Whether a batch is of bytes, of floats or, before it is made again, of both: its values are the samples'."""
    made = real_sampler()
    made.provider.set_augment(Dimmed())
    types = set()
    for i, batch in enumerate(load(made, stop=12, batch_size=2, num_workers=workers)):
        types.add(batch["input"].dtype)
        for j in range(2):
            sample = made(generator(3, "train", 2 * i + j))
            assert sample["input"].dtype == np.float32
            grey = batch["input"][j].numpy()
            np.testing.assert_array_equal(grey / np.float32(255) if grey.dtype == np.uint8 else grey, sample["input"])
            for key in sample.keys() - {"input"}:
                np.testing.assert_array_equal(batch[key][j].numpy(), sample[key])
    assert torch.float32 in types


def test_a_subclass_may_have_a_call_of_its_own():
    class Brighter(Sampler):
        def __call__(self, rng: np.random.Generator) -> dict[str, Any]:
            sample = super().__call__(rng)
            return sample | {"input": sample["input"] + 1}

    made = real_sampler()
    brighter = Brighter.__new__(Brighter)
    brighter.__dict__.update(made.__dict__)
    for one, other in zip(load(made), load(brighter), strict=True):
        assert torch.equal(one["input"] / 255 + 1, other["input"])


def test_the_stream_goes_on_from_any_batch():
    rest = load(numbers, start=5, stop=8, num_workers=1)
    assert len(rest) == 3
    assert same(load(numbers, stop=8, num_workers=2)[5:], rest)
    assert not torch.equal(load(numbers, stop=1)[0]["input"], load(numbers, stop=1, phase="val")[0]["input"])
    assert load(numbers, start=4, stop=4, num_workers=2) == []


def test_ranks_take_turns():
    whole = load(numbers, batch_size=4)
    ranks = [load(numbers, batch_size=4, rank=rank, world=2, num_workers=rank) for rank in (0, 1)]
    for batch, even, odd in zip(whole, *ranks, strict=True):
        assert torch.equal(batch["input"][0::2], even["input"])
        assert torch.equal(batch["input"][1::2], odd["input"])
    with pytest.raises(InputError, match=r"batch_size: got 3, wants a positive multiple .* 2"):
        load(numbers, batch_size=3, world=2)


def test_ids_of_two_sizes_share_a_batch():
    def mixed(rng: np.random.Generator) -> dict[str, Any]:
        return {"seg": np.full((1, 1, 1, 1), 2**31 - 1, rng.choice([np.int32, np.int64]))}  # type: ignore[arg-type]

    for batch in load(mixed, batch_size=8):
        assert batch["seg"].dtype == torch.int64
        assert (batch["seg"] == 2**31 - 1).all()


def test_memory_is_used_again_once_a_batch_is_dropped():
    held = load(numbers, stop=20, num_workers=1)
    assert len({batch["input"].data_ptr() for batch in held}) == 20
    stream = batches(numbers, seed=3, phase="train", start=0, stop=40, batch_size=1, num_workers=1)
    where = [next(stream)["input"].data_ptr() for _ in range(40)]
    assert len(set(where)) < 10


def test_memory_is_in_use_as_long_as_the_process_of_the_loader_has_it():
    stream = batches(numbers, seed=3, phase="train", start=0, stop=40, batch_size=1, num_workers=1)
    held = {0: next(stream)["input"]}
    before = held[0].clone()
    next(stream)
    if (fork := os.fork()) == 0:
        held.clear()
        os._exit(0)
    os.waitpid(fork, 0)
    others = list(stream)
    assert torch.equal(held[0], before)
    assert len({batch["input"].data_ptr() for batch in others}) == 38


def failing(kind: str) -> Any:
    def sampler(rng: np.random.Generator) -> dict[str, Any]:
        sample = numbers(rng)
        if sample["input"][0, 0, 0, 0] == numbers(generator(3, "train", 4))["input"][0, 0, 0, 0]:
            _fail(kind)
        return sample

    return sampler


class Unpicklable(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def _fail(kind: str) -> None:
    if kind == "input":
        raise InputError("dataset a", "nothing", "something")
    if kind == "value":
        raise ValueError("out of paper")
    if kind == "unpicklable":
        raise Unpicklable("one", "two")
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "exit":
        os._exit(3)
    threading.Event().wait()


def until_failure(kind: str, workers: int, **options: Any) -> tuple[int, Exception]:
    stream = batches(
        failing(kind), seed=3, phase="train", start=0, stop=9, batch_size=1, num_workers=workers, **options
    )
    count = 0
    try:
        for _ in stream:
            count += 1
    except (ValueError, RuntimeError) as error:
        assert not [p for p in multiprocessing.active_children() if p.name.startswith("deepem")]
        return count, error
    raise AssertionError("no error")


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_error_arrives_as_itself_when_its_batch_is_due(workers: int):
    count, error = until_failure("input", workers)
    assert count == 4
    assert type(error) is InputError
    assert str(error) == "dataset a (train sample 4 of seed 3): got nothing, wants something"
    count, error = until_failure("value", workers)
    assert count == 4
    assert type(error) is ValueError
    assert error.args == ("out of paper",)
    told = [*getattr(error, "__notes__", []), str(error.__cause__)]
    assert any("train sample 4 of seed 3" in line for line in told)
    if workers:
        assert "_fail" in str(error.__cause__)  # the worker's own traceback


def test_an_error_that_cannot_travel_is_told():
    _, error = until_failure("unpicklable", 1)
    assert type(error) is RuntimeError
    assert "Unpicklable: one" in str(error)


@pytest.mark.parametrize(("kind", "told"), [("killed", "SIGKILL"), ("exit", "exit code 3")])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_dead_worker_ends_the_stream(kind: str, told: str, workers: int):
    _, error = until_failure(kind, workers)
    assert type(error) is WorkerError
    assert told in str(error)
    assert "train sample 4 of seed 3" in str(error)


@pytest.mark.slow
def test_a_hanging_worker_ends_the_stream(capfd: pytest.CaptureFixture[str]):
    _, error = until_failure("hang", 2, worker_timeout=2)
    assert type(error) is WorkerError
    assert "hangs" in str(error)
    assert "train sample 4 of seed 3" in str(error)
    assert "_fail" in capfd.readouterr().err  # where it hangs


@pytest.fixture
def few_files() -> Iterator[Callable[[int], int]]:
    """Limits the open files of this process to some more than it has open now."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(more: int) -> int:
        number = len(os.listdir("/proc/self/fd")) + more
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))
        return number

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="counts the files of this process")
@pytest.mark.parametrize(("more", "workers"), [(42, 2), (20, 0)])
def test_fewer_workers_where_few_files_may_be_open(
    few_files: Callable[[int], int], capfd: pytest.CaptureFixture[str], more: int, workers: int
):
    alone = load(numbers, stop=60)
    limit = few_files(more)
    given = {"seed": 3, "start": 0, "stop": 60, "batch_size": 1, "num_workers": 8}
    assert sum(same(*pair) for pair in zip(alone, batches(numbers, phase="train", **given), strict=True)) == 60
    told = f"warning: num_workers: {workers} instead of 8: the limit of {limit} open files allows no more (ulimit -n)\n"
    assert capfd.readouterr().err == told
    for _ in batches(numbers, phase="val", **given):
        pass
    assert not capfd.readouterr().err


def test_workers_end_with_the_stream():
    stream = batches(numbers, seed=3, phase="train", start=0, stop=9, batch_size=1, num_workers=2)
    next(stream)
    assert len([p for p in multiprocessing.active_children() if p.name.startswith("deepem")]) == 2
    del stream
    assert not [p for p in multiprocessing.active_children() if p.name.startswith("deepem")]


def test_a_batch_can_be_used_after_its_stream():
    kept = [
        batch["input"]
        for batch in batches(numbers, seed=3, phase="train", start=0, stop=3, batch_size=1, num_workers=2)
    ]
    assert len(kept) == 3
    assert same(kept, [batch["input"] for batch in load(numbers, stop=3)])
