"""Do the runs that a file of settings describes: find their stages, skip finished ones, and do the others."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepem.cli import config_file, forward_parser, train_parser
from deepem.cli.config_file import is_null, plain
from deepem.cli.plugins import as_file
from deepem.cli.training import TrainOptions
from deepem.runs import events
from deepem.tasks import to_plain
from deepem.tools import evaluate_options, segment_options, sweep
from deepem.tools.stages import Records, Stage
from deepem.tools.sweep import Point
from deepem.utils import checkpoint
from deepem.utils.errors import InputError
from deepem.utils.files import write_text

STAGES = ("train", "forward", "segment", "evaluate", "report")
STOP = (signal.SIGTERM, signal.SIGUSR1)


class Failed(Exception):
    """A stage ended with a nonzero exit code."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(str(code))


@dataclass(frozen=True)
class Run:
    """One run of a file: all stages with one set of values.

    Attributes:
        files: The files of settings, including the file of the point.
        options: The options of training.
        programs: The STAGES that the files have.
        point: This run's values of the sweep.
    """

    files: tuple[str, ...]
    options: TrainOptions
    programs: tuple[str, ...]
    point: Point

    @classmethod
    def of(cls, files: Sequence[str], point: Point) -> Run:
        """Return the run of a point, whose settings override those of the files.

        Raises:
            InputError: the settings cannot be used.
        """
        settings = config_file.read(files)
        headings = config_file.headings(settings)
        several = bool(headings & set(STAGES))
        programs = tuple(name for name in STAGES if name in headings) if several else ("train",)
        page = next((setting for setting in settings if setting.path == ("report", "out")), None)
        if point.values and page is not None and not is_null(page.node):
            got = f"{plain(page.node)} for every run of a sweep"
            raise InputError(f"{page.at}: report.out", got, "none: each run has a page in its folder")
        if "train" not in programs:
            raise InputError(f"{files[0]}: train", "no such heading", "the options of training")
        given = tuple(files)
        if point.values:
            with redirect_stderr(io.StringIO()):  # no need to report the sweep here
                base = _parse(given)
            name = f"{base.run.exp_name}/{point.name}"
            path = base.folder / f"{point.name}.yaml"
            text = point.settings(name, several=several)
            if not path.is_file() or path.read_text() != text:
                write_text(path, text)
            given = (*given, str(path))
        return cls(given, _parse(given), programs, point)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.options.folder

    def settings(self, program: str) -> dict[str, Any]:
        """Return the settings of a program in the files, by heading and name."""
        found = config_file.of_program(config_file.read(self.files), program)
        return {".".join(setting.path): plain(setting.node) for setting in found if not is_null(setting.node)}

    def row(self) -> dict[str, Any]:
        """Return the run's columns in the table of a sweep."""
        row: dict[str, Any] = {key: plain(node) for key, node in self.point.values.items()}
        losses = [r for r in events.rows(self.folder / "logs") if r["phase"] == "test" and "loss" in r]
        row["iterations"] = max(checkpoint.numbers(self.folder / "models"), default=0)
        row["test loss"] = losses[-1]["loss"] if losses else None
        row["best"] = min((r["loss"] for r in losses), default=None)
        for path in sorted(self.folder.glob("scores/*.json")):
            for name, value in sweep.scores(json.loads(path.read_text())):
                row[f"{path.stem} {name}"] = value
        return row


def _parse(files: Sequence[str]) -> TrainOptions:
    return train_parser.parse(["--config", *files])


def check(run: Run) -> None:
    """Read the settings of the stages after training, so that a fault in them is found before the training.

    Raises:
        InputError: a setting cannot be used.
    """
    files = ["--config", *run.files]
    if {"forward", "segment", "evaluate"} & set(run.programs):
        state = {"options": run.options.flat(), "tasks": [to_plain(task) for task in run.options.tasks.chosen]}
        as_trained = forward_parser.Found(run.options.run.max_iter, state)
        forward_parser.parse([*files, "--exp_name", str(run.options.run.exp_name)], lambda *_: as_trained)
    if "segment" in run.programs:
        segment_options.read_words(["PREDICTION", *files, "--out", "SEGMENTS"])
    if "evaluate" in run.programs:
        evaluate_options.read_words(["PREDICTION", *files, "--truth", "TRUTH"], None)


def do(run: Run) -> int:
    """Do the unfinished stages of a run, and return 0 or the exit code of the stage that failed."""
    records = Records(run.folder)
    try:
        for program in run.programs:
            STEPS[program](run, records)
    except Failed as failed:
        return failed.code
    return 0


def train(run: Run, records: Records) -> list[Path]:
    """Train to the last iteration."""
    modules = [*(run.options.data.data or ()), run.options.network.model, run.options.data.augment or ""]
    sources = [path for path in map(as_file, filter(None, modules)) if path is not None]
    settings = {"settings": run.options.settings}
    stage = Stage("train", "train", ["--config", *run.files], settings, sources)
    last = checkpoint.path_of(run.folder / "models", run.options.run.max_iter)
    return perform(run, records, stage, lambda _: [last])


def forward(run: Run, records: Records) -> list[Path]:
    """Predict each volume with the newest checkpoint."""
    words = ["--config", *run.files, "--exp_name", str(run.options.run.exp_name), "--json"]
    options, found = forward_parser.parse(words)
    model = checkpoint.path_of(run.folder / "models", found.number)
    made = []
    for name in options.volumes or [""]:
        more = ["--test_ids", name] if name else []
        image = Path(options.files.data_dir) / name / options.files.input_name
        stage = Stage(
            " ".join(filter(None, ("forward", name))), "forward", [*words, *more], run.settings("forward"),
            [model, *([image] if name else [])],
        )  # fmt: skip
        made += perform(run, records, stage, _outputs)
    return made


def _outputs(text: str) -> list[Path]:
    """Return the files that a prediction wrote, from its summary."""
    volumes = json.loads(text.strip().splitlines()[-1])["volumes"]
    found = [str(path) for volume in volumes for path in volume.get("outputs", {}).values()]
    return [Path(path.removeprefix("file://")) for path in found]


def _predicted(run: Run, records: Records) -> Iterator[tuple[str, list[Path]]]:
    """Yield (id, files) of each prediction once it is done."""
    options, _ = forward_parser.parse(["--config", *run.files, "--exp_name", str(run.options.run.exp_name)])
    files = forward(run, records)
    for name in options.volumes:
        beginning = f"{options.files.out_prefix and options.files.out_prefix + '_'}{name.replace('/', '_')}_"
        yield name, [path for path in files if path.name.startswith(beginning)]


def segment(run: Run, records: Records) -> list[Path]:
    """Segment the affinities of each volume, or whatever output the decoder needs."""
    settings = run.settings("segment")
    made = []
    for _, files in _predicted(run, records):
        affinities = [path for path in files if "_affinity_" in path.name]
        if settings.get("decoder") == "mutex":
            affinities += [path for path in files if "_long_range_" in path.name]
        elif settings.get("decoder") == "objects" or not affinities:
            affinities = [path for path in files if path not in affinities][:1]
        out = affinities[0].with_name(f"{affinities[0].stem}_seg.h5")
        words = [*map(str, affinities), "--config", *run.files, "--out", str(out)]
        stage = Stage(f"segment {affinities[0].stem}", "segment", words, settings, affinities)
        made += perform(run, records, stage, lambda _, out=out: sorted(out.parent.glob(f"{out.stem}*.h5")))
    return made


def evaluate(run: Run, records: Records) -> list[Path]:
    """Score the predictions of each volume."""
    settings = run.settings("evaluate")
    options, _ = forward_parser.parse(["--config", *run.files, "--exp_name", str(run.options.run.exp_name)])
    segments = segment(run, records) if "segment" in run.programs else []
    made = []
    for name, files in _predicted(run, records):
        truth = str(settings.get("truth", f"{options.files.data_dir}/{{}}")).replace("{}", name)
        labels = [path for path in segments if path.stem.startswith(files[0].stem)] if files else []
        scores = run.folder / "scores" / f"{name.replace('/', '_')}.json"
        scores.parent.mkdir(parents=True, exist_ok=True)
        files = [*files, *labels]
        words = [*map(str, files), "--config", *run.files, "--truth", truth, "--json", str(scores)]
        stage = Stage(f"evaluate {name}", "evaluate", words, settings, [*files, Path(truth)])
        made += perform(run, records, stage, lambda _, scores=scores: [scores])
    return made


def report(run: Run, records: Records) -> list[Path]:
    """Write a page about the run and what the other stages made."""
    settings = run.settings("report")
    out = Path(str(settings.get("out", run.folder / "report.html")))
    own = [run.folder / name for name in ("options.json", "logs/metrics.jsonl")]
    words = [str(run.folder), "--config", *run.files, "--out", str(out)]
    stage = Stage("report", "report", words, settings, [*own, *records.written("report")])
    return perform(run, records, stage, lambda _: [out])


STEPS = {"train": train, "forward": forward, "segment": segment, "evaluate": evaluate, "report": report}


def perform(run: Run, records: Records, stage: Stage, outputs: Any) -> list[Path]:
    """Do a stage unless it is done, and return its outputs.

    Raises:
        Failed: the stage ended with a nonzero exit code.
    """
    there = records.outputs(stage)
    if there is not None:
        if stage.name not in records.told:
            tell(run, f"{stage.name}: done before")
        records.told.add(stage.name)
        return there
    made_from = stage.made_from()
    tell(run, f"{stage.name}: {records.why(stage)}")
    text = call([stage.verb, *stage.words])
    written: list[Path] = outputs(text)
    if absent := [path for path in written if not path.exists()]:
        raise InputError(stage.name, f"no {absent[0]} when it was done", "that file")
    records.add(stage, written, made_from)
    records.told.add(stage.name)
    return written


def tell(run: Run, line: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"run: {run.options.run.exp_name}: {line}\n")
    sys.stderr.flush()


def call(words: Sequence[str]) -> str:
    """Call a verb in a process of its own, and return what it printed.

    Raises:
        Failed: the stage ended with a nonzero exit code.
    """
    child = subprocess.Popen([sys.executable, "-m", "deepem", *words], stdout=subprocess.PIPE, text=True)
    with handed_on(child):
        text, _ = child.communicate()
    sys.stderr.write(text if words[0] != "forward" else "")
    if child.returncode:
        raise Failed(child.returncode if child.returncode > 0 else 128 - child.returncode)
    return text


@contextmanager
def handed_on(child: subprocess.Popen[str]) -> Iterator[None]:
    """Forward requests to stop to the child process."""
    before = {number: signal.signal(number, lambda n, _: child.send_signal(n)) for number in STOP}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
