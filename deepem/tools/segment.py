"""Segment a volume block by block; the result does not depend on the blocks.

    deepem segment t2_affinity_1000.h5 --out SEG.h5
    deepem segment t2_affinity_1000.h5 t2_long_range_1000.h5 --decoder mutex --out SEG.h5
    deepem segment t2_affinity_1000.h5 --threshold 0.3 0.4 0.5 --out SEG.h5          writes SEG_0.3.h5, ...
    deepem segment t2_mitochondria_1000.h5 --decoder objects --min_size 500 --out MITO.zarr

The edges of several files are used together. The same command resumes a run that was stopped. For a volume that needs
many machines: deepem queue plan --plan FOLDER --program segment <these words>.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepem.cli.flags import flags_of
from deepem.tools import output
from deepem.tools.segment_options import PROGRAM, SegmentOptions, read_words
from deepem.utils.errors import InputError
from deepem.utils.geometry import vec3

if TYPE_CHECKING:
    from deepem.blocks.plan import Plan
    from deepem.tools.segment_inputs import Opened
    from deepem.tools.segment_tasks import SegmentTasks

TELL_EVERY_S = 10.0
LATER = ("out", "threshold", "min_size", "join_smaller", "proofread", "work", "again", "threads")
"""Flags that --again may change."""


def main(words: Sequence[str]) -> int:
    """Read the command line and segment."""
    with output.errors_of(PROGRAM, *(flag.name for flag in flags_of(SegmentOptions))):
        files, own = read_words(words, __doc__)
        from deepem.io.label_volume import require_place
        from deepem.tools.segment_inputs import BLOCK, fingerprint, opened
        from deepem.tools.segment_tasks import SegmentTasks, inputs, outputs
        from deepem.utils.allocator import keep_memory

        keep_memory()
        with ExitStack() as stack:
            before = _before(own)
            block = BLOCK if before is None else vec3(before.settings["block"])
            volumes = stack.enter_context(opened(files, own, block))
            for path in outputs(own).values():
                require_place(path, volumes.layout)
            tell(_need(own, volumes))
            plan = _plan(words, files, own, volumes, before, fingerprint(inputs(files, own)))
            with ExitStack() as written:
                tasks = SegmentTasks(own, volumes, _parts(plan, volumes), written, tell)
                _run(plan, tasks, own)
        if own.work is None:
            shutil.rmtree(plan.folder)
        tell(f"wrote {', '.join(outputs(own).values())}")
    return 0


def tell(line: str) -> None:
    """Write one line to stderr."""
    sys.stderr.write(f"segment: {line}\n")
    sys.stderr.flush()


def _folder(own: SegmentOptions) -> str:
    """Return the folder of intermediate results: --work, or a folder beside the first output, removed at the end."""
    if own.work is not None:
        return own.work
    first = next(iter(own.outputs.values()))
    path = Path(first.removeprefix("precomputed://").removeprefix("file://").rstrip("/"))
    if "://" in str(path):
        raise InputError("--work", "nothing", f"a local folder for what passes between the phases of {first}")
    return str(path.with_name(f".{path.name}.parts"))


def _before(own: SegmentOptions) -> Plan | None:
    """Return the plan of an earlier run that was stopped or kept."""
    from deepem.blocks.plan import FILE, Plan

    there = Path(_folder(own), FILE).is_file()
    if own.again and not there:
        raise InputError("--again", f"nothing in {_folder(own)}", "--work FOLDER of a run before")
    return Plan.load(_folder(own)) if there else None


def _plan(
    words: Sequence[str],
    files: Sequence[str],
    own: SegmentOptions,
    volumes: Opened,
    before: Plan | None,
    now: list[list[Any]],
) -> Plan:
    """Return the plan of this run: a new one, or that of an earlier run with all results that can be reused."""
    from deepem.tools.segment_tasks import written_plan

    folder = _folder(own)
    if before is not None:
        try:
            _continue(before, files, own, now)
        except InputError:
            if own.work is not None or own.again:
                raise
            tell(f"{folder}: of another run that was stopped; begun anew")
            shutil.rmtree(folder)
    elif (there := Path(folder)).exists() and any(there.iterdir()):
        raise InputError("--work", f"{folder}, which holds something else", "a new folder")
    return written_plan(folder, words, files, own, volumes)


def _continue(before: Plan, files: Sequence[str], own: SegmentOptions, now: list[list[Any]]) -> None:
    """Check that an earlier run fits this one; with --again, forget its tasks after the first phase.

    Raises:
        InputError: the earlier run had other inputs or options.
    """
    held_files, held = read_words(before.settings["words"])
    remedy = f"the same as before, or another --work than {before.folder}"
    if (list(files), now) != (held_files, before.settings["inputs"]):
        raise InputError("FILE", "other files than before, or changed ones", remedy)
    changed = [f.name for f in fields(own) if getattr(own, f.name) != getattr(held, f.name)]
    fixed = [name for name in changed if name not in LATER or (name == "threshold" and not _late_threshold(own))]
    if fixed:
        raise InputError(f"--{fixed[0]}", f"{getattr(own, fixed[0])}, not {getattr(held, fixed[0])}", remedy)
    anew = [name for name in changed if name not in ("work", "again", "threads")]
    if anew and not own.again:
        raise InputError(f"--{anew[0]}", f"{getattr(own, anew[0])}, not {getattr(held, anew[0])}", "--again too")
    if own.again:
        before.forget(before.first(1))


def _late_threshold(own: SegmentOptions) -> bool:
    from deepem.segment.plan import GRAPH

    return own.decoder in GRAPH


def _parts(plan: Plan, volumes: Opened) -> Any:
    from deepem.blocks.folder import Folder
    from deepem.segment.parts import Parts

    return Parts(Folder(plan.folder), volumes.plan)


def _run(plan: Plan, tasks: SegmentTasks, own: SegmentOptions) -> None:
    """Do the remaining tasks, one phase after the other, with blocks in parallel."""
    count = own.threads or _processors()
    for number, phase in enumerate(plan.phases):
        done = {task for task in plan.done() if task in plan.numbers(number)}
        if phase.name in ("segments", "levels"):  # outputs may have been moved since
            done = {task for task in done if tasks.checked and tasks.holds(phase.name, plan.markers.marker(task) or {})}
        left = [task for task in plan.numbers(number) if task not in done]

        def do(task: int, name: str = phase.name) -> None:
            if name == "graph" and own.again:
                made = _solved(tasks)
            else:
                made = tasks.do(name, plan.box(task), name)
            plan.markers.set_done(task, made)

        side_by_side(do, left, count, phase.name)


def _solved(tasks: SegmentTasks) -> dict[str, Any]:
    """Compute the segments from the existing graph."""
    return {"files": tasks.solve(tasks.parts.regions(graphs=True)), "blocks": []}


def side_by_side(function: Callable[[int], None], tasks: Sequence[int], count: int, label: str) -> None:
    """Do tasks on several threads and report progress from time to time; the first error stops all."""
    begun = told = time.monotonic()
    with ThreadPoolExecutor(count) as pool:
        waiting = {pool.submit(function, task) for task in tasks}
        try:
            while waiting:
                finished, waiting = wait(waiting, TELL_EVERY_S, FIRST_EXCEPTION)
                for one in finished:
                    one.result()
                if waiting and time.monotonic() - told >= TELL_EVERY_S:
                    told = time.monotonic()
                    tell(f"{label}: {len(tasks) - len(waiting):,} of {len(tasks):,}, {told - begun:.0f} s")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _processors() -> int:
    there: Iterable[int] = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return min(len(list(there)), 8)


def _need(own: SegmentOptions, volumes: Opened) -> str:
    """Describe the work before it starts: blocks, memory, disk."""
    from deepem.segment.plan import memory_of
    from deepem.utils.main_memory import in_words

    plan, threads = volumes.plan, min(own.threads or _processors(), len(volumes.plan.boxes))
    blocks, graph = memory_of(plan)
    disk = 2 * plan.volume.voxels
    count, block = len(plan.boxes), "x".join(map(str, plan.block))
    what = f"{plan.volume.voxels / 1e6:,.1f} Mvoxels in {count:,} block{'s'[: count > 1]} of {block}"
    return (
        f"{what}; memory: {in_words(threads * blocks)} for {threads} at a time, about {in_words(graph)} for the region "
        f"graph; {in_words(disk)} on disk until it is done"
    )
