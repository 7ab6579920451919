"""The folder of a run: its options, its checkpoints, and the best of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deepem.runs import events
from deepem.runs.lock import Lock
from deepem.utils import checkpoint
from deepem.utils.checkpoint import State
from deepem.utils.errors import InputError, warn
from deepem.utils.files import remove_torn, write_text


class RunFolder:
    """The folder of a run. Nothing is written before `begin`, so that bad input leaves no trace.

    Args:
        folder: Where the run lives.
        writes: This process writes into it, and holds it against others; of several ranks the first one does.
        best_by: What `best.chkpt` follows: the loss, or the name of a score in the rows of the phase ``segment``.
        lower: Whether the best of these is the lowest.

    Attributes:
        models: The checkpoints.
        logs: Metrics and TensorBoard events.
        source: The checkpoint that the run goes on from, once `newest` has found one.
        saved: The iteration that was saved last.
    """

    def __init__(self, folder: Path, writes: bool = True, best_by: str = "loss", lower: bool = True) -> None:
        self.writes, self.best_by, self.lower = writes, best_by, lower
        self.folder, self.models, self.logs = folder, folder / "models", folder / "logs"
        self.source = self.models
        self.saved = 0
        self._lock: Lock | None = None
        self._seen: list[int] = []

    def resume(self, number: int) -> State | None:
        """The checkpoint to go on from, or None for a new run.

        Args:
            number: The checkpoint that was asked for, or 0 for the newest that can be read.

        Raises:
            InputError: the checkpoint asked for cannot be read.
        """
        self._hold()
        self._seen = checkpoint.numbers(self.models)
        if number:
            state: State | None = checkpoint.read(checkpoint.path_of(self.models, number))
        else:
            number, state = checkpoint.newest(self.models) or (0, None)
        self.source = checkpoint.path_of(self.models, number)
        return state

    def begin(
        self,
        iteration: int,
        record: Mapping[str, Any],
        lines: Sequence[str],
        checkpoint_size: int,
        settings: str = "",
    ) -> None:
        """Move aside what is newer than the iteration to go on from, and write down the options.

        Args:
            iteration: Where the run goes on.
            record: The options of the run: flag -> value, in plain types.
            lines: The same as an @file.
            checkpoint_size: About how many bytes a checkpoint takes.
            settings: The same as a YAML file.
        """
        checkpoint.require_room(self.models, checkpoint_size)
        try:
            for folder in (self.models, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(folder, error.strerror or error, "a folder that can be written") from error
        self._hold()
        if self._lock is not None:
            self._lock.sign()
        if (there := checkpoint.numbers(self.models)) != self._seen:
            wants = "the same command again: it goes on from them"
            raise InputError(self.models, f"checkpoints {there} that another run has written just now", wants)
        for path in [*checkpoint.set_aside(self.models, iteration), *events.set_aside(self.logs, iteration)]:
            warn(f"newer than iteration {iteration}, moved to {path}")
        self.link_best()
        for folder in (self.folder, self.models, self.logs):
            remove_torn(folder)
        write_text(self.folder / "options.json", json.dumps(record, indent=2) + "\n")
        write_text(self.folder / "options.args", "\n".join(lines) + "\n")
        write_text(self.folder / "options.yaml", settings)

    def remember(self, iteration: int, changes: Sequence[str]) -> None:
        """Write down, in logs/history.jsonl, what is other from an iteration on than the run was started with."""
        for line in changes:
            row = {"iter": iteration, "change": line, "time": datetime.now(timezone.utc).isoformat(timespec="seconds")}
            events.append_row(self.logs / "history.jsonl", row)

    def release(self) -> None:
        """Let another process have the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _hold(self) -> None:
        """Hold the folder, if it is there, so that no other run writes into it.

        Raises:
            InputError: another run does.
        """
        if self._lock is None and self.writes and self.folder.is_dir():
            self._lock = Lock(self.folder)

    def save(self, iteration: int, state: Mapping[str, Any], keep: int = 0, keep_every: int = 0) -> Path:
        """Write the checkpoint of an iteration, whole or not at all, and remove those that need not be kept.

        Args:
            iteration: Number of optimiser steps done.
            state: What the checkpoint holds.
            keep: How many of the newest checkpoints are kept; 0 keeps all.
            keep_every: Checkpoints of every so many steps are kept besides.

        Raises:
            InputError: the weights are not finite, or the disk cannot take them.
        """
        path = checkpoint.path_of(self.models, iteration)
        if bad := [name for name, value in state["state_dict"].items() if _not_finite(value)]:
            wants = "finite ones: resume from the last checkpoint with a smaller lr, or clip"
            raise InputError(f"iteration {iteration}", f"weights that are not finite ({bad[0]})", wants)
        checkpoint.write(path, {"iter": iteration, **state})
        self.saved = iteration
        best = self.link_best()
        if keep:
            checkpoint.prune(self.models, keep, keep_every, best)
        return path

    def evaluated(self, iteration: int, phase: str = "test") -> bool:
        """Whether an iteration has a row of its evaluation."""
        return any(row["phase"] == phase and row["iter"] == iteration for row in events.rows(self.logs))

    def link_best(self) -> int | None:
        """Point `best.chkpt` to the best checkpoint, if there is one, and give its number.

        Read from the log, so that it is right after any resume; a value that is not finite is never the best.
        """
        there = set(checkpoint.numbers(self.models))
        values = [(row["iter"], self._value(row)) for row in events.rows(self.logs)]
        known = {number: value for number, value in values if value is not None and number in there}
        ranked = [(value if self.lower else -value, number) for number, value in known.items() if math.isfinite(value)]
        best = min(ranked)[1] if ranked else None
        checkpoint.link(self.models, "best.chkpt", best)
        return best

    def _value(self, row: Mapping[str, Any]) -> float | None:
        """What a row says of its iteration: the loss, or the mean of a score over the outputs that have it."""
        if self.best_by == "loss":
            return row.get("loss") if row["phase"] == "test" else None
        own = [value for name, value in row.items() if name.endswith(f"/{self.best_by}")]
        return math.fsum(own) / len(own) if row["phase"] == "segment" and own else None


def _not_finite(value: Any) -> bool:
    """Whether an entry of a state dict holds a NaN or an infinity; a module's extra state is no tensor."""
    return hasattr(value, "isfinite") and not bool(value.isfinite().all())


def plain(value: Any) -> Any:
    """A value in plain JSON types, as it comes back from a file."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
