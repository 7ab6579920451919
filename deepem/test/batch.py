"""Predict a batch of cut-outs from a JSON file, one after the other or spread over several GPUs.

The file is a list of cut-outs, or ``{"defaults": {...}, "cutouts": [...]}``. A cut-out maps flags of the command line,
without their dashes, to values. A cut-out's flags override the defaults, and both override the command line. A null
value counts as not given::

    {"defaults": {"gs_input": "gs://lab/em", "gs_output": "gs://lab/out/{}"},
     "cutouts": [{"center": [5000, 6000, 700], "size": [1024, 1024, 128]},
                 {"begin": [0, 0, 0], "end": [512, 512, 64], "keywords": ["corner"]}]}
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from deepem.cli.forward_parser import find_checkpoint, parse, parser
from deepem.cli.forwarding import ForwardOptions
from deepem.scan.progress import tell
from deepem.test.job import Job
from deepem.test.kinds import written
from deepem.test.volumes import file_paths, predict_all
from deepem.utils.errors import InputError

_find_once = lru_cache(maxsize=1)(find_checkpoint)
"""Reads the checkpoint once per process, since all cut-outs of a batch usually share one."""

Words = list[str]
Figures = dict[str, Any]


def predict_batch(options: ForwardOptions, words: Sequence[str]) -> list[Figures]:
    """Predict each cut-out and return the figures of all volumes, in the order of the file.

    Raises:
        InputError: the file cannot be used, or a cut-out failed. The other cut-outs are predicted nevertheless.
    """
    where = f"{options.batch.spec}: cut-out"
    cutouts = read(Path(options.batch.spec or ""), _without(list(words), {"--spec", "--processes"}))
    gpus = 0 if options.speed.cpu or options.speed.gpu_id is not None else torch.cuda.device_count()
    count = min(options.batch.processes or max(gpus, 1), len(cutouts))
    taken: dict[Path, int] = {}
    for number, line in enumerate(cutouts):  # report bad input before the first cut-out starts
        try:
            own, found_there = parse(line, _find_once)
            if not (own.volumes or own.cloud.gs_input or own.batch.dummy):
                raise InputError("--test_ids", "nothing", "a volume to predict (or --gs_input, --dummy)")
            for path in _files(own, found_there.number):
                if (other := taken.setdefault(path, number)) != number:
                    wants = "an --out_prefix or --out_tag for each cut-out of a volume"
                    raise InputError("--test_ids", f"{path}, which cut-out {other} writes", wants)
        except InputError as error:
            raise InputError(
                f"{options.batch.spec}: cut-out {number}: {error.where}", error.got, error.wants
            ) from error
    cutouts = on_devices(cutouts, gpus)
    found: dict[int, list[Figures]] = {}
    failed: dict[int, InputError] = {}
    for number, outcome in _each(cutouts, count):
        try:
            found[number] = outcome()
        except (InputError, BrokenProcessPool) as error:
            killed = InputError("process", "killed", "more memory, or fewer --processes")
            failed[number] = error if isinstance(error, InputError) else killed
            tell(f"{where} {number}: {failed[number]}")
    if failed:
        first = failed[number := min(failed)]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise InputError(f"{where} {number}{more}: {first.where}", first.got, first.wants)
    return [figures for number in sorted(found) for figures in found[number]]


def _files(options: ForwardOptions, iteration: int) -> set[Path]:
    """Return the files that a cut-out writes; empty with cloud-volume, where cut-outs are boxes of one volume."""
    if options.cloud.gs_input or options.cloud.gs_output or options.batch.dummy:
        return set()
    outputs = {name: one.channels for name, one in written(options.tasks.chosen).items()}
    return {path for name in options.volumes for path in file_paths(options, outputs, iteration, name).values()}


def on_devices(cutouts: Sequence[Words], gpus: int) -> list[Words]:
    """Assign GPUs to the command lines in turn; leave the lines unchanged unless there are several GPUs."""
    return [[*line, *(["--gpu_id", str(n % gpus)] if gpus > 1 else [])] for n, line in enumerate(cutouts)]


def _each(cutouts: Sequence[Words], count: int) -> Iterator[tuple[int, Callable[[], list[Figures]]]]:
    """Yield each cut-out's number and a function that returns its figures or raises; run in this process or a pool."""
    if count == 1:
        yield from ((number, partial(_predict, line)) for number, line in enumerate(cutouts))
        return
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn")) as pool:
        done = {pool.submit(_predict, line): number for number, line in enumerate(cutouts)}
        for future in as_completed(done):
            yield done[future], future.result


def read(file: Path, words: Words) -> list[Words]:
    """Return the command line of each cut-out in a file.

    Raises:
        InputError: the file is not JSON of the form above.
    """
    wants = 'a JSON list of cut-outs, or {"defaults": {...}, "cutouts": [...]}'
    try:
        held = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"--spec {file}", error, wants) from error
    defaults = held.get("defaults", {}) if isinstance(held, dict) else {}
    cutouts = held.get("cutouts") if isinstance(held, dict) else held
    if not isinstance(cutouts, list) or not cutouts or not all(isinstance(c, dict) for c in [defaults, *cutouts]):
        raise InputError(f"--spec {file}", "something else", wants)
    vectors = _vectors()
    for number, cutout in enumerate(cutouts):
        if wrong := [name for name in (*defaults, *cutout) if name.lstrip("-") in OUTSIDE]:
            raise InputError(f"--spec {file}: cut-out {number}", f"the flag {wrong[0]}", "flags of a single cut-out")
    return [[*words, *_words({**defaults, **cutout}, vectors)] for cutout in cutouts]


OUTSIDE = ("spec", "processes", "help", "h")
"""Flags that have no meaning for a single cut-out."""


def _words(flags: Mapping[str, Any], vectors: Collection[str]) -> Words:
    """Turn flags and values into words and skip null values; flags in `vectors` take a list as one word."""
    words: Words = []
    for name, value in flags.items():
        flag = f"--{name.lstrip('-')}"
        if value is None:
            continue
        if isinstance(value, bool):
            words += [flag] if value else []
        elif isinstance(value, list) and flag not in vectors:
            words += [flag, *map(_word, value)]
        else:
            words += [flag, _word(value)]
    return words


def _word(value: Any) -> str:
    """Return a value as one word: comma-separated for a list, JSON for a dict."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _vectors() -> set[str]:
    """Return the flags that take a list of numbers as one word, such as z,y,x; flags of plug-ins take several words."""
    flags = parser().flags.values()
    single = [flag for flag in flags if not flag.is_switch and flag.form is not None and flag.form.many is None]
    return {word for flag in single for word in (f"--{flag.name}", *([flag.short] if flag.short else []))}


def _without(words: Words, flags: set[str]) -> Words:
    """Return the words without the given flags and their values."""
    kept: Words = []
    skip = False
    for word in words:
        if skip or word in flags:
            skip = word in flags
        elif word.split("=")[0] not in flags:
            kept.append(word)
    return kept


def _predict(words: Words) -> list[Figures]:
    """Predict a cut-out and return the figures of each of its volumes; --test_ids may name several."""
    return predict_all(Job(*parse(words, _find_once)))
