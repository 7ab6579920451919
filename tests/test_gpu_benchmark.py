"""scripts/benchmark/gpu.sh: that it runs in small, and that what it reports is what happened."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from types import ModuleType

import pytest
import torch

SECTIONS = ("tests", "step", "loop", "inference", "learning")


@pytest.fixture
def program(root, monkeypatch):
    """Imports one of its programs by name."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(root / "scripts" / "benchmark" / "gpu"))
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


@pytest.mark.slow
def test_it_runs_in_small(root, tmp_path, verb_env):
    """Every section has figures; what needs a GPU says so."""
    if torch.cuda.is_available():
        pytest.skip("a GPU: what needs one is measured there")
    command = ["bash", str(root / "scripts" / "benchmark" / "gpu.sh"), str(tmp_path), "--small"]
    done = subprocess.run(command, env=verb_env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "figures.json").read_text())["sections"]
    table = (tmp_path / "table.md").read_text()
    assert tuple(found) == SECTIONS
    for name, section in found.items():
        assert section["exit_code"] == 0
        assert section["error"] is None
        assert section["figures"]
        assert all(figure["case"] in table for figure in section["figures"]), name
    cases = {name: {figure["case"]: figure for figure in section["figures"]} for name, section in found.items()}
    assert cases["tests"]["tests"]["failed"] == 0 < cases["tests"]["tests"]["passed"]
    assert cases["tests"]["tests for a GPU"]["count"] > 50
    without = {case for case, figure in cases["step"].items() if figure.get("note") == "needs a GPU"}
    assert without == {f"2x16x16, {name}" for name in (
        "TF32", "TF32, channels last", "fp16", "fp16, channels last", "bf16, channels last, CUDA graph",
        "bf16, channels last, compiled, CUDA graph",
    )}  # fmt: skip
    assert cases["step"]["2x16x16, eager float32"]["times_the_limit"] > 1
    assert sum("kernel" in case for case in cases["step"]) == 10
    assert {case for case, figure in cases["loop"].items() if figure.get("share", 0) > 0} == {
        "grayscale_warping, 2 workers", "flyem.aug_mip1, 2 workers",
    }  # fmt: skip
    assert all(figure["voxels_per_s"] > 0 for case, figure in cases["inference"].items() if case.startswith("file"))
    assert cases["learning"]["the run"]["iterations"] == 6


def test_traffic_is_what_operators_read_and_write(program):
    """Worked out by hand: float32, 1000 voxels are 4000 bytes."""
    traffic = program("traffic")
    x, expanded = torch.zeros(10, 100), torch.zeros(1).expand(10, 100)
    counts = {
        "add": (lambda: x + 1, 8000, 0),
        "copy_": (lambda: x.copy_(expanded), 4004, 0),
        "add_": (lambda: x.add_(x), 8000, 0),
        "sum": (lambda: x.sum(), 4004, 4004),
        "_to_copy": (lambda: x.half(), 6000, 0),
        "mm": (lambda: x @ x.T, 2 * 4000 + 400, 2 * 4000 + 400),
    }
    for name, (call, every, fused) in counts.items():
        found = traffic.counted(call)
        if name == "mm":  # twice the same memory, as two views
            assert (found.total, found.fused) == (every, fused)
        else:
            assert (dict(found.by_operator), found.fused) == ({name: every}, fused)
    assert traffic.counted(lambda: x.view(-1)[3:].transpose(0, 0)).total == 0


def test_traffic_counts_both_directions(program):
    weight = torch.ones(4, 1, 1, 1, 1, requires_grad=True)
    image = torch.ones(1, 1, 2, 3, 5)
    found = program("traffic").counted(lambda: torch.nn.functional.conv3d(image, weight).sum().backward())
    assert found.by_operator["convolution"] == 4 * (30 + 4 + 120)
    assert found.by_operator["convolution_backward"] >= 4 * (30 + 4)


EVENTS = [
    {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#6", "ts": 0, "dur": 100},
    {"ph": "X", "cat": "user_annotation", "name": "forward", "ts": 0, "dur": 40},
    {"ph": "X", "cat": "user_annotation", "name": "optimiser", "ts": 60, "dur": 35},
    {"ph": "X", "cat": "user_annotation", "name": "Optimizer.step#Adam.step", "ts": 61, "dur": 5},
    {"ph": "X", "cat": "kernel", "name": "conv", "ts": 10, "dur": 30},
    {"ph": "X", "cat": "kernel", "name": "norm", "ts": 35, "dur": 35},
    {"ph": "X", "cat": "gpu_memcpy", "name": "Memcpy HtoD (Pinned -> Device)", "ts": 30, "dur": 20},
    {"ph": "X", "cat": "gpu_memcpy", "name": "Memcpy DtoH (Device -> Pinned)", "ts": 80, "dur": 10},
    {"ph": "X", "cat": "gpu_memcpy", "name": "Memcpy DtoD (Device -> Device)", "ts": 92, "dur": 2},
    {"ph": "X", "cat": "cuda_runtime", "name": "cudaEventSynchronize", "ts": 65, "dur": 10},
    {"ph": "i", "cat": "kernel", "name": "no span", "ts": 1},
]
"""A step of 100 microseconds: the device computes from 10 to 70, and copies from 30 to 50, 80 to 90 and 92 to 94."""


def test_a_trace_tells_where_the_time_goes(program, tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": EVENTS}))
    trace = program("timeline").Timeline(path)
    assert trace.busy == [(10, 70), (80, 90), (92, 94)]
    assert trace.idle() == [(0, 10), (70, 80), (90, 92), (94, 100)]
    assert trace.idle_by_stage() == {"forward": 10, "optimiser": 13, "between stages": 5}
    assert trace.by_stage() == {"forward": 40, "optimiser": 35, "between stages": 25}
    assert trace.waiting() == {"cudaEventSynchronize": 10}
    assert trace.hidden() == pytest.approx(20 / 30)


def test_a_section_that_fails_leaves_its_error_and_what_it_had(program, tmp_path):
    """So does one that takes too long; each figure is on disk when it is told."""
    report = program("report")
    (tmp_path / "logs").mkdir()
    document = report.Document(tmp_path)
    tell = 'import sys, time; print(\'FIGURE {"case": "a", "ms": 1.5}\', flush=True); '
    assert report.run("good", [sys.executable, "-c", tell], 60, document)
    assert not report.run("bad", [sys.executable, "-c", f"{tell}sys.exit('no device')"], 60, document)
    assert not report.run("long", [sys.executable, "-c", f"{tell}time.sleep(600)"], 3, document)
    found = json.loads((tmp_path / "figures.json").read_text())["sections"]
    assert [found[name]["error"] for name in ("good", "bad", "long")] == [
        None, "no device", "stopped: it took longer than its budget of 3 s",
    ]  # fmt: skip
    assert found["bad"]["figures"] == [{"case": "a", "ms": 1.5}]
    assert "| good | a | ms 1.5 |" in (tmp_path / "table.md").read_text()
    document.add("good", {"case": "a", "ms": 2.0})
    assert [figure["ms"] for figure in document.content["sections"]["good"]["figures"]] == [2.0]


def test_packages_are_packed_whole_and_only_as_far_as_there_is_room(program, tmp_path, monkeypatch):
    pack = program("pack")
    monkeypatch.setattr(pack, "WANTED", ("Small", "large", "numpy"))
    sizes = {"small": (10, ("needed", "numpy")), "needed": (20, ()), "large": (100, ("needed",)), "numpy": (50, ())}
    wheels = {}
    for name, (size, needs) in sizes.items():
        (tmp_path / name).write_bytes(bytes(size))
        wheels[name] = pack.Wheel(tmp_path / name, name, needs)
    assert pack.chosen(wheels, {"numpy"}, 100) == ({"small", "needed"}, ["small"], {"large": 100})
    assert pack.chosen(wheels, {"numpy"}, 130) == ({"small", "needed", "large"}, ["small", "large"], {})
    assert set(map(pack.plain, ("tensorboardX", "bioimage-cpp", "connected_components-3d"))) <= set(pack.bounds())
