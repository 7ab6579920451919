"""Tasks of any program over a queue, in two phases: whatever happens to workers, each phase sees the whole of the last.

Numbers 0 to 7 are the tasks of the first phase, 8 is the one of the second.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deepem.blocks import worker
from deepem.blocks.plan import Plan
from deepem.blocks.programs import PROGRAMS, program
from deepem.tools import queue_enqueue, queue_status
from deepem.utils.errors import InputError

pytest.importorskip("taskqueue")

QUEUE = "fq://queue"
FIRST = set(range(8))
TOTAL = sum(10000 * z + 100 * y + x for z in range(2, 6) for y in range(3, 9) for x in range(4, 11))
WORKER = """
import sys
from deepem.blocks import programs, worker
programs.PROGRAMS["toy"] = "toy"
worker.LOOK_AGAIN_S = 0.05
print(worker.work(sys.argv[1], 1))
"""


@pytest.fixture
def plan(tmp_path, monkeypatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PROGRAMS, "toy", "toy")
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(worker, "WAIT_S", 0)
    monkeypatch.setattr(worker, "LOOK_AGAIN_S", 0)
    worker.tasks_of.cache_clear()
    return program("toy").make_plan("plan", ["out"], (2, 3, 4))


def worker_process(root, dies_in: str = "") -> subprocess.CompletedProcess[str]:
    """A worker in a process of its own, which may kill itself in a task."""
    paths = f"{root}:{Path(__file__).parent}"
    env = {**os.environ, "PYTHONPATH": paths, "TOY_DIES_IN": dies_in}
    return subprocess.run([sys.executable, "-c", WORKER, QUEUE], capture_output=True, text=True, env=env, check=False)


def total() -> int:
    return int(Path("out/total_2-3-4").read_text())


def test_a_phase_is_offered_when_the_one_before_is_done(plan):
    assert len(plan) == 9
    assert [plan.phase_of(number) for number in (0, 7, 8)] == [0, 0, 1]
    assert worker.enqueue(plan, QUEUE) == 8
    assert worker.work(QUEUE, 60) == 8
    assert not Path("out/total_2-3-4").exists()
    assert list(plan.left()) == [8]
    assert worker.enqueue(plan, QUEUE) == 1
    assert worker.work(QUEUE, 60) == 1
    assert total() == TOTAL
    assert worker.enqueue(plan, QUEUE) == 0
    assert worker.damaged(plan) == []


def test_workers_that_are_killed_in_either_phase_lose_nothing(plan, root):
    worker.enqueue(plan, QUEUE)
    killed = worker_process(root, dies_in="task 3 of 9")
    assert killed.returncode == -signal.SIGKILL
    assert 3 not in plan.done()
    assert worker.enqueue(plan, QUEUE) == len(FIRST - plan.done())  # of the first phase still, some of them twice
    assert worker_process(root).returncode == 0
    assert plan.done() == FIRST
    assert worker.enqueue(plan, QUEUE) == 1
    assert worker_process(root, dies_in="task 8 of 9").returncode == -signal.SIGKILL
    assert plan.done() == FIRST
    assert int(Path("out/total_2-3-4").read_text()) != TOTAL
    again = worker_process(root)
    assert again.stdout == "1\n", again.stderr
    assert total() == TOTAL
    assert plan.done() == FIRST | {8}


def test_a_later_phase_waits_until_the_damaged_task_before_it_is_done_again(plan):
    """The second phase is in the queue when a block of the first turns out to be damaged."""
    worker.enqueue(plan, QUEUE)
    worker.work(QUEUE, 60)
    worker.enqueue(plan, QUEUE)
    Path("out/sums_2-3-8").write_text("9" * 20)
    assert worker.damaged(plan) == [1]
    plan.forget(1)
    assert worker.work(QUEUE, 60) == 1
    assert plan.done() == FIRST - {1}
    for count in (1, 1):
        assert worker.enqueue(plan, QUEUE) == count
        worker.work(QUEUE, 60)
    assert total() == TOTAL


def test_what_was_made_from_a_damaged_block_is_made_again(plan, capsys):
    for _ in range(2):
        worker.enqueue(plan, QUEUE)
        worker.work(QUEUE, 60)
    Path("out/sums_2-3-4").write_text("1" * 20)
    Path("out/total_2-3-4").write_text("2" * 20)
    assert queue_enqueue.main(["--plan", "plan", "--queue", QUEUE, "--verify"]) == 0
    assert capsys.readouterr().out == "1 of 9 tasks put into fq://queue\n"
    assert plan.done() == FIRST - {0}
    worker.work(QUEUE, 60)
    worker.enqueue(plan, QUEUE)
    worker.work(QUEUE, 60)
    assert total() == TOTAL


def test_a_task_whose_input_is_found_damaged_while_it_runs_is_not_marked(plan, monkeypatch):
    worker.enqueue(plan, QUEUE)
    worker.work(QUEUE, 60)
    worker.enqueue(plan, QUEUE)
    kind = type(worker.tasks_of("plan", os.getcwd()))
    do = kind.do

    def reopened(self, *task):
        plan.markers.close([1])
        plan.markers.open(1)
        return do(self, *task)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "do", reopened)
        assert not worker.do_task("plan", 8)
    assert plan.done() == FIRST
    assert worker.do_task("plan", 8)


def test_status_counts_all_phases(plan, capsys):
    worker.enqueue(plan, QUEUE)
    worker.work(QUEUE, 60)
    assert queue_status.main(["--plan", "plan", "--queue", QUEUE]) == 1
    assert capsys.readouterr().out == "tasks 9, done 8, enqueued 0, leased 0\n"
    worker.enqueue(plan, QUEUE)
    worker.work(QUEUE, 60)
    capsys.readouterr()
    assert queue_status.main(["--plan", "plan", "--verify", "--json"]) == 0
    assert capsys.readouterr().out == '{"tasks": 9, "done": 9, "failed": {}, "damaged": []}\n'


def test_a_task_that_fails_is_named_and_keeps_the_next_phase_waiting(plan, capsys):
    Path("out").mkdir()
    Path("out/sums_2-3-4").mkdir()
    worker.enqueue(plan, QUEUE)
    worker.work(QUEUE, 60)
    assert set(plan.failed()) == {0}
    assert "task 0: " in plan.failed()[0]
    assert list(plan.left()) == [0]
    assert capsys.readouterr().err.count("trying again") == worker.TRIES - 1
    Path("out/sums_2-3-4").rmdir()
    worker.enqueue(plan, QUEUE)
    worker.work(QUEUE, 60)
    assert not plan.failed()
    assert list(plan.left()) == [8]


def test_an_unknown_program_and_a_plan_of_another_version_are_refused(plan):
    with pytest.raises(InputError, match="program: got nothing_such, wants one of forward"):
        program("nothing_such")
    Path("plan/plan.json").write_text('{"words": [], "covered": [[0, 0, 0], [1, 1, 1]], "task_size": [1, 1, 1]}')
    with pytest.raises(InputError, match=r"plan: got the plan\.json of another version"):
        Plan.load("plan")


def test_the_programs_of_the_table_offer_what_the_room_calls():
    for name in PROGRAMS:
        module = program(name)
        assert all(callable(getattr(module, part)) for part in ("make_plan", "open_tasks", "effort", "rate"))


def test_without_task_queue_it_is_named(plan, monkeypatch):
    monkeypatch.setitem(sys.modules, "taskqueue", None)
    with pytest.raises(InputError, match=r"queue: got no package taskqueue, wants it installed: pip install"):
        worker.enqueue(plan, QUEUE)


def test_an_entry_without_contents_is_removed_and_the_others_are_done(plan, capsys):
    """A full disk, or a process that was killed while it filled the queue, leaves them; task-queue waits on them."""
    worker.enqueue(plan, QUEUE)
    entry = sorted(Path("queue/queue").iterdir())[0]
    entry.write_text("")
    os.utime(entry, (0, 0))
    assert worker.work(QUEUE, 100) == 7
    assert f"queue entry {entry.name}: empty" in capsys.readouterr().err
    assert len(plan.done()) == 7


def test_an_entry_of_an_older_plan_does_not_end_a_worker(plan, capsys):
    assert worker.do_task("plan", 9) is False
    assert "task 9: left by an older plan of plan, which has 9 tasks now" in capsys.readouterr().err


PHASE = '{"phases": [{"name": "a", "covered": %s, "task_size": %s}], "program": "toy", "settings": {}}'
HELD = [
    "[]",
    '{"phases": 5}',
    '{"phases": [5], "program": "toy", "settings": {}}',
    '{"phases": [], "settings": {}}',
    PHASE % ("[[0,0],[1]]", "[1,1,1]"),
    PHASE % ("[[9,9,9],[0,0,0]]", "[1,1,1]"),
    PHASE % ("[[0,0,0],[9,9,9]]", "[0,0,0]"),
    PHASE % ("[[0,0,0],[9,9,9]]", '"x"'),
]


@pytest.mark.parametrize("held", HELD)
def test_a_plan_with_other_contents_is_bad_input(tmp_path, held):
    (tmp_path / "plan.json").write_text(held)
    with pytest.raises(InputError, match=r"plan\.json"):
        Plan.load(str(tmp_path))


def test_a_file_is_no_plan(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"file: got .*, wants the folder of a plan"):
        Plan.load(str(tmp_path / "file"))
