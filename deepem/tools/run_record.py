"""Reads what the folder of a run says about it. Nothing in it is believed, and any of it may be missing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deepem.cli.task_flags import stored_rows, task_options
from deepem.runs.pictures import Picture, newest_pictures
from deepem.runs.series import Log, read_log
from deepem.tasks import Task
from deepem.utils import checkpoint
from deepem.utils.errors import InputError, reason
from deepem.utils.files import run_folder

LARGEST_JSON = 1 << 26
"""Bytes of the largest JSON file to read."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names of entries of a state dict that are not trained."""


@dataclass
class RunRecord:
    """What the folder of a run says.

    Attributes:
        folder: The folder.
        options: The options, by flag.
        settings: The options as a YAML file.
        log: metrics.jsonl.
        pictures: The newest pictures in the TensorBoard events.
        checkpoints: The numbers of the checkpoints.
        best: The number of the best checkpoint.
        provenance: What made the newest checkpoint: version, commit, host, command.
        parameters: How many weights its network has.
        tasks: The tasks that it was trained on.
        starts: When the run was started or resumed, and on which host.
        changes: (iteration, option that changed on resuming).
        written: When metrics.jsonl was last written to.
        notes: What is missing or damaged, a sentence each.
    """

    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: str = ""
    log: Log = field(default_factory=lambda: Log({}, 0, 0))
    pictures: Sequence[Picture] = ()
    checkpoints: Sequence[int] = ()
    best: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    tasks: Sequence[Task] = ()
    starts: Sequence[tuple[datetime, str]] = ()
    changes: Sequence[tuple[Any, str]] = ()
    written: datetime | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the run."""
        return str(self.options.get("exp_name") or self.folder.resolve().name)

    @property
    def iteration(self) -> int:
        """The last iteration that the run is known to have reached."""
        return max([self.log.last, *self.checkpoints])

    @property
    def max_iter(self) -> int | None:
        """The last iteration that it is meant to reach."""
        held = self.options.get("max_iter")
        return held if isinstance(held, int) and not isinstance(held, bool) else None


def find(word: str) -> Path:
    """Return the folder of a run, given as a folder or by its name in experiments/.

    Raises:
        InputError: there is no such run.
    """
    named = Path("experiments")
    for folder in (Path(word), _named(word)):
        if folder is not None and is_run(folder):
            return folder
    got = f"{word}, which holds no run" if Path(word).is_dir() else f"{word}, which is not there"
    there = sorted(path.name for path in named.glob("*") if is_run(path)) if named.is_dir() else []
    listed = f"; there: {', '.join(there[:10])}{', ...' if len(there) > 10 else ''}" if there else ""
    raise InputError("RUN", got, f"the folder of a run, or the name of one in experiments/{listed}")


def _named(word: str) -> Path | None:
    try:
        return run_folder(word)
    except InputError:
        return None


def is_run(folder: Path) -> bool:
    """Whether a folder holds a run."""
    logs = folder / "logs"
    try:
        files = (folder / "options.json", logs / "metrics.jsonl")
        return any(path.is_file() for path in files) or bool(checkpoint.numbers(folder / "models") or _events(logs))
    except (OSError, ValueError):  # a name that no file can have
        return False


def read(folder: Path) -> RunRecord:
    """Read the folder of a run."""
    run = RunRecord(folder)
    run.options = _options(run)
    with _noted(run, "options.yaml"):
        settings = folder / "options.yaml"
        run.settings = settings.read_text(encoding="utf-8", errors="replace") if settings.is_file() else ""
    _read_logs(run, folder / "logs")
    _read_checkpoints(run, folder / "models")
    return run


@contextmanager
def _noted(run: RunRecord, what: str) -> Iterator[None]:
    """Wrap the reading of a file: if it fails, a note says so."""
    try:
        yield
    except OSError as error:
        run.notes.append(f"{what} cannot be read: {error.strerror or error}.")


def _options(run: RunRecord) -> dict[str, Any]:
    path = run.folder / "options.json"
    if not path.is_file():
        run.notes.append(
            "There is no options.json: how the run was set up is known from its checkpoints alone, if any."
        )
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        run.notes.append("options.json is damaged and was left out.")
    return found if isinstance(found, dict) else {}


def read_json(path: Path) -> Any:
    """Return the contents of a JSON file, or None if it cannot be read or is none."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _read_logs(run: RunRecord, logs: Path) -> None:
    metrics = logs / "metrics.jsonl"
    with _noted(run, "metrics.jsonl"):
        run.log = read_log(metrics)
        if metrics.is_file():
            run.written = datetime.fromtimestamp(metrics.stat().st_mtime, timezone.utc)
    if not run.log.rows:
        run.notes.append("metrics.jsonl has no rows yet, so there are no curves.")
    if damaged := run.log.damaged:
        were = "line of metrics.jsonl was" if damaged == 1 else "lines of metrics.jsonl were"
        run.notes.append(f"{damaged:,} damaged {were} left out.")
    if lost := sum(one.not_finite for one in run.log.series.values()):
        are = "value in metrics.jsonl is" if lost == 1 else "values in metrics.jsonl are"
        run.notes.append(f"{lost:,} {are} infinite or not a number, and not drawn.")
    run.starts = _events(logs)
    with _noted(run, "the TensorBoard events"):
        run.pictures = newest_pictures(logs)
    if not run.pictures:
        run.notes.append(
            "The TensorBoard events hold no pictures." if run.starts else "There are no TensorBoard events."
        )
    with _noted(run, "history.jsonl"):
        history = logs / "history.jsonl"
        lines = history.read_text(encoding="utf-8", errors="replace").splitlines() if history.is_file() else []
        run.changes = [change for change in map(_change, lines) if change is not None]


def _change(line: str) -> tuple[Any, str] | None:
    try:
        row = json.loads(line)
        return row["iter"], str(row["change"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _events(logs: Path) -> list[tuple[datetime, str]]:
    """Return the time and host of each start of the run: TensorBoard's files have them in their names."""
    found = [re.search(r"tfevents\.(\d{1,11})\.(.+)", path.name) for path in sorted(logs.glob("*tfevents*"))]
    return [(datetime.fromtimestamp(int(match[1]), timezone.utc), match[2]) for match in found if match]


def _read_checkpoints(run: RunRecord, models: Path) -> None:
    """Read the newest checkpoint for what only it knows. One that is damaged is passed over, with a warning."""
    run.checkpoints = checkpoint.numbers(models)
    link = models / "best.chkpt"
    best = re.fullmatch(r"model(\d+)\.chkpt", os.readlink(link)) if link.is_symlink() else None
    run.best = int(best[1]) if best else None
    found = checkpoint.newest(models) if run.checkpoints else None
    if found is None:
        run.notes.append(
            "No checkpoint can be read, so its environment and its parameters are unknown."
            if run.checkpoints
            else "There is no checkpoint yet, so its environment and its parameters are unknown."
        )
        state: Mapping[str, Any] = {}
    else:
        state = found[1]
        run.parameters = parameters(state["state_dict"])
    held = state.get("options")
    run.options = run.options or (dict(held) if isinstance(held, Mapping) else {})
    made = state.get("provenance")
    run.provenance = made if isinstance(made, Mapping) else {}
    try:
        run.tasks = task_options(stored_rows(state), run.options).chosen if run.options else ()
    except (InputError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        run.notes.append(f"The tasks of options.json cannot be used: {reason(error)}.")


def parameters(weights: Mapping[str, Any]) -> int:
    """Return how many numbers a network learns: the entries of its state dict, shared ones once, without statistics."""
    tensors = {
        (value.data_ptr(), tuple(value.shape)): value.numel()
        for name, value in weights.items()
        if hasattr(value, "data_ptr") and not name.endswith(STATISTICS)
    }
    return sum(tensors.values())
