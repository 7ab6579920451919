"""The folder of a run: its options, its checkpoints, and the link to the best checkpoint."""

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
    """The folder of a run. Nothing is written before `begin`, so bad input leaves no trace.

    Args:
        folder: The path of the folder.
        writes: Whether this process writes into the folder and locks it. With several ranks, only the first does.
        best_by: The value that `best.chkpt` follows: the loss, or the name of a score in the rows of the phase
            ``segment``.
        lower: Whether lower values of it are better.

    Attributes:
        models: The folder of checkpoints.
        logs: The folder of metrics and TensorBoard events.
        source: The checkpoint to resume from, once it has been found.
        saved: The iteration of the last saved checkpoint.
    """

    def __init__(self, folder: Path, writes: bool = True, best_by: str = "loss", lower: bool = True) -> None:
        self.writes, self.best_by, self.lower = writes, best_by, lower
        self.folder, self.models, self.logs = folder, folder / "models", folder / "logs"
        self.source = self.models
        self.saved = 0
        self._lock: Lock | None = None
        self._seen: list[int] = []

    def resume(self, number: int) -> State | None:
        """Return the checkpoint to resume from, or None for a new run.

        Args:
            number: The checkpoint to use, or 0 for the newest readable one.

        Raises:
            InputError: the requested checkpoint cannot be read.
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
        """Move aside everything newer than the iteration to resume from, and write the options.

        Args:
            iteration: The iteration to resume from.
            record: The options of the run: flag -> value, in plain types.
            lines: The same options as lines of an @file.
            checkpoint_size: Approximate size of a checkpoint in bytes.
            settings: The same options as a YAML file.
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
        """Record in logs/history.jsonl which options differ from those at the start, from this iteration on."""
        for line in changes:
            row = {"iter": iteration, "change": line, "time": datetime.now(timezone.utc).isoformat(timespec="seconds")}
            events.append_row(self.logs / "history.jsonl", row)

    def release(self) -> None:
        """Release the folder's lock, so that another process can use the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _hold(self) -> None:
        """Lock the folder, if it exists, so that no other run writes into it.

        Raises:
            InputError: another run holds the lock.
        """
        if self._lock is None and self.writes and self.folder.is_dir():
            self._lock = Lock(self.folder)

    def save(self, iteration: int, state: Mapping[str, Any], keep: int = 0, keep_every: int = 0) -> Path:
        """Write the checkpoint of an iteration atomically, and remove checkpoints that need not be kept.

        Args:
            iteration: Number of optimiser steps done.
            state: The contents of the checkpoint.
            keep: How many of the newest checkpoints are kept; 0 keeps all.
            keep_every: Checkpoints at multiples of this many steps are kept too.

        Raises:
            InputError: the weights are not finite, or the disk cannot take the checkpoint.
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
        """Whether the log has an evaluation row for an iteration."""
        return any(row["phase"] == phase and row["iter"] == iteration for row in events.rows(self.logs))

    def link_best(self) -> int | None:
        """Point `best.chkpt` to the best checkpoint, if there is one, and return its number.

        The values are read from the log, so the link is right after any resume. A value that is not finite is never
        best.
        """
        there = set(checkpoint.numbers(self.models))
        values = [(row["iter"], self._value(row)) for row in events.rows(self.logs)]
        known = {number: value for number, value in values if value is not None and number in there}
        ranked = [(value if self.lower else -value, number) for number, value in known.items() if math.isfinite(value)]
        best = min(ranked)[1] if ranked else None
        checkpoint.link(self.models, "best.chkpt", best)
        return best

    def _value(self, row: Mapping[str, Any]) -> float | None:
        """Return the value to compare checkpoints by: the loss, or the mean of a score over the outputs."""
        if self.best_by == "loss":
            return row.get("loss") if row["phase"] == "test" else None
        own = [value for name, value in row.items() if name.endswith(f"/{self.best_by}")]
        return math.fsum(own) / len(own) if row["phase"] == "segment" and own else None


def _not_finite(value: Any) -> bool:
    """Whether an entry of a state dict holds a NaN or an infinity. Extra state that is no tensor passes."""
    return hasattr(value, "isfinite") and not bool(value.isfinite().all())


def plain(value: Any) -> Any:
    """Convert a value to plain JSON types, as it would come back from a file."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
