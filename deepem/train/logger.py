"""The log of a run: averages on the screen, in TensorBoard and as JSON lines, and pictures."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from deepem.runs import events
from deepem.train.board import Board
from deepem.train.objective import Losses
from deepem.train.profiler import stage
from deepem.train.ranks import Ranks
from deepem.train.render import Picture
from deepem.utils.errors import InputError


class Averages:
    """Sums of losses and counts since the last row, kept on the device so that adding does not synchronise."""

    def __init__(self, ranks: Ranks, state: Mapping[str, list[float]] | None = None) -> None:
        self.ranks = ranks
        self.sums = {name: torch.tensor(pair, dtype=torch.float64) for name, pair in (state or {}).items()}

    def add(self, parts: Losses) -> None:
        """Add the losses of one step."""
        for name, (loss, count) in parts.items():
            pair = torch.stack([loss.detach().double(), torch.as_tensor(count, device=loss.device).double()])
            self.sums[name] = self.sums[name].to(pair.device) + pair if name in self.sums else pair

    def state(self, together: bool = True) -> dict[str, list[float]]:
        """Return the sums over all ranks, or of this rank alone, as plain numbers for a checkpoint."""
        summed = self.ranks.sum if together else torch.Tensor.clone
        return {name: summed(pair.clone()).tolist() for name, pair in self.sums.items()}

    def values(self) -> dict[str, float]:
        """Return sum(loss) / sum(count) of each head since the last `take`; empty heads are left out."""
        sums = self.state()
        return {name: loss / count for name, (loss, count) in sums.items() if count > 0}

    def take(self) -> dict[str, float]:
        """Return the averages and start new ones."""
        values = self.values()
        self.sums = {}
        return values


class Logger:
    """Writes the rows of a run; use it as a context manager, which flushes its buffers at the end.

    All ranks make the same calls; only the first rank writes.

    Args:
        folder: The folder `logs/` of the run.
        start: The iteration that the run starts from.
        stop: The last iteration, used to estimate the time left.
        averages: The saved state of the averages to continue from.
        ranks: The processes whose losses are averaged.
    """

    def __init__(self, folder: Path, start: int, stop: int, averages: Mapping[str, list[float]], ranks: Ranks) -> None:
        from tqdm import tqdm

        self.rows, self.leads = folder / "metrics.jsonl", ranks.leads
        self.board = Board(folder) if self.leads else None
        tty = self.leads and sys.stderr.isatty()
        self.bar = tqdm(total=stop, initial=start, unit="it", dynamic_ncols=True) if tty else None
        self.stop = stop
        self.train = Averages(ranks, averages)
        self.waited = 0.0
        self.row_time, self.row_iteration = perf_counter(), start

    @stage("log")
    def step(self, parts: Losses | None, waited: float) -> None:
        """Add the losses of a step (None for a skipped step) and the seconds that the step waited for its batch."""
        if parts is not None:
            self.train.add(parts)
        self.waited += waited
        if self.bar is not None:
            self.bar.update()

    @stage("log row")
    def train_row(self, iteration: int, more: Mapping[str, float]) -> None:
        """Write a row with the averages since the last row, and further figures of these steps."""
        self.show(iteration)
        speed, waited = self._pace(iteration)
        self.row_time, self.row_iteration, self.waited = perf_counter(), iteration, 0.0
        self._write(iteration, "train", self.train.take(), {"it_per_s": speed, "data_wait": waited, **more})

    def show(self, iteration: int) -> None:
        """Show the averages since the last row without resetting them; they also count in the next row."""
        speed, waited = self._pace(iteration)
        pace = f"{speed:.3g} it/s, waited {waited * speed:.0%}, {_clock((self.stop - iteration) / speed)} left"
        self._say(iteration, "train", self.train.values(), pace)

    def _pace(self, iteration: int) -> tuple[float, float]:
        """Return steps per second, and seconds spent waiting for data per step, since the last row."""
        steps = iteration - self.row_iteration
        return max(steps, 1) / max(perf_counter() - self.row_time, 1e-9), self.waited / max(steps, 1)

    def test_row(self, iteration: int, losses: Mapping[str, float], seconds: float) -> None:
        """Write the averages of an evaluation. Its time does not count as training time."""
        self.pause(seconds)
        self._write(iteration, "test", losses, {})
        self._say(iteration, "test", losses, f"{seconds:.1f} s")

    def segment_row(self, iteration: int, scores: Mapping[str, float], seconds: float, told: str) -> None:
        """Write the scores of a whole volume. Their time does not count as training time."""
        self.pause(seconds)
        self._write(iteration, "segment", scores, {})
        self._say(iteration, "segment", scores, told)

    def pause(self, seconds: float) -> None:
        """Exclude this many seconds from the training time."""
        self.row_time = min(self.row_time + seconds, perf_counter())

    def pictures(self, iteration: int, phase: str, rows: Mapping[str, Picture], words: Mapping[str, str]) -> None:
        """Write one picture per task, with a text under the same tag that says what it shows."""
        if self.board is None:
            return
        for name, picture in rows.items():
            self.board.image(f"{phase}/images/{name}", picture, iteration)
            self.board.text(f"{phase}/images/{name}", words[name], iteration)

    def line(self, text: str) -> None:
        """Print one line, above the progress bar if there is one."""
        if self.bar is not None:
            self.bar.write(text)
        elif self.leads:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.board is not None:
            with suppress(InputError) if kind else nullcontext():  # a second error must not hide the first
                self.board.close()

    def _write(self, iteration: int, phase: str, losses: Mapping[str, float], more: Mapping[str, float]) -> None:
        if self.board is None:
            return
        row: dict[str, Any] = {"iter": iteration, "phase": phase, **losses, **more}
        events.append_row(self.rows, row)
        for name, value in losses.items():
            self.board.scalar(f"{phase}/{name}", value, iteration)
        for name, value in more.items():
            self.board.scalar(name, value, iteration)

    def _say(self, iteration: int, phase: str, losses: Mapping[str, float], rest: str) -> None:
        values = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        if self.bar is not None and phase == "train":
            self.bar.set_postfix_str(values)
        self.line(
            f"{phase:>5} {iteration:>{len(str(self.stop))}}/{self.stop}  {values or 'no labelled voxels'}  ({rest})"
        )


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours // 24}d {hours % 24:02}:{m:02}" if hours >= 24 else f"{hours}:{m:02}:{s:02}"
