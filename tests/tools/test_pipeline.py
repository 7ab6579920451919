"""`deepem run`: stages that are done by what they were made from, sweeps, their table and their array job."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Lab

from deepem.cli import config_file
from deepem.tools import pipeline, runner, sweep
from deepem.tools.stages import Records, Stage
from deepem.utils.errors import InputError

EXP = """\
train: {exp_name: exp, data: synthetic, model: rsunet, width: [4, 8], fov: [4, 16, 16], aff: 1, mit: 0.5, max_iter: 7}
forward: {data_dir: data, test_ids: [t1, t2], cpu: true}
evaluate: {truth: "truth/{}", mask: data/t1}
report: {}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab.with_checkpoint(tmp_path_factory.mktemp("pipeline"))
    for name in ("t1", "t2"):
        lab.image(name, (6, 20, 20))
    return lab


@pytest.fixture
def calls(trained: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The verbs that are called. Each leaves its outputs, or says that it failed if its name is in FAILS."""
    monkeypatch.chdir(tmp_path)
    for name in ("data", "experiments"):
        subprocess.run(["cp", "-r", str(trained.folder / name), name], check=True)
    Path("exp.yaml").write_text(EXP)
    called: list[list[str]] = []

    def call(words: list[str]) -> str:
        called.append(list(words))
        if words[0] in os.environ.get("FAILS", "").split():
            raise runner.Failed(85)
        if words[0] == "forward":
            name = words[-1]
            path = Path(f"experiments/exp/forward/{name}_affinity_7.h5")
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"prediction of {name}")
            return json.dumps({"volumes": [{"name": name, "outputs": {"affinity": str(path)}}]})
        if words[0] == "evaluate":
            Path(words[words.index("--json") + 1]).write_text('[{"output": "affinity", "are": 0.5}]')
        if words[0] == "report":
            Path(words[words.index("--out") + 1]).write_text("page")
        return ""

    monkeypatch.setattr(runner, "call", call)
    return called


def verbs(calls: list[list[str]]) -> list[str]:
    """The verbs that were called since the last time, with the id of a prediction."""
    names = [" ".join([words[0], *(words[-1:] if words[0] == "forward" else [])]) for words in calls]
    calls.clear()
    return names


WHOLE = ["train", "forward t1", "forward t2", "evaluate", "evaluate", "report"]


def test_what_is_done_is_not_done_again(calls: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline.main(["exp.yaml"]) == 0
    assert calls[-2][2:6] == ["--config", "exp.yaml", "--truth", "truth/t2"]
    report = ["report", "experiments/exp", "--config", "exp.yaml", "--out", "experiments/exp/report.html"]
    assert calls[-1] == report
    assert verbs(calls) == WHOLE
    assert "run: exp: forward t2: not done yet" in capsys.readouterr().err
    assert pipeline.main(["exp.yaml"]) == 0
    assert verbs(calls) == []
    assert "run: exp: evaluate t2: done before" in capsys.readouterr().err


def rewrite(path: str, old: str, new: str) -> Callable[[], object]:
    return lambda: Path(path).write_text(Path(path).read_text().replace(old, new))


CHANGES: dict[str, tuple[Callable[[], object], list[str]]] = {
    "a touched input": (lambda: os.utime("data/t1/img.h5"), []),
    "another input": (
        lambda: Path("data/t1/img.h5").write_bytes(Path("data/t2/img.h5").read_bytes() + b"x"),
        ["forward t1"],
    ),
    "a lost output": (lambda: Path("experiments/exp/forward/t2_affinity_7.h5").unlink(), ["forward t2"]),
    "a changed output": (
        lambda: Path("experiments/exp/forward/t2_affinity_7.h5").write_text("x"),
        ["forward t2"],
    ),
    "another option of inference": (rewrite("exp.yaml", "cpu: true", "overlap: [0, 0, 0]"), WHOLE[1:3]),
    "another option of training": (rewrite("exp.yaml", "aff: 1,", "aff: 2,"), ["train"]),
    "another option of scoring": (rewrite("exp.yaml", ", mask: data/t1", ""), ["evaluate", "evaluate"]),
    "another truth": (
        lambda: (Path("truth/t1").mkdir(parents=True), Path("truth/t1/seg").write_text("x")),
        ["evaluate"],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_was_made_from_something_else_is_made_again(change: str, calls: list[list[str]]) -> None:
    assert pipeline.main(["exp.yaml"]) == 0
    calls.clear()
    does, again = CHANGES[change]
    does()
    assert pipeline.main(["exp.yaml"]) == 0
    assert verbs(calls) == again


def test_a_stage_that_fails_ends_the_run_with_its_code_and_is_done_the_next_time(
    calls: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILS", "evaluate")
    assert pipeline.main(["exp.yaml"]) == 85
    assert verbs(calls) == WHOLE[:4]
    monkeypatch.delenv("FAILS")
    assert pipeline.main(["exp.yaml"]) == 0
    assert verbs(calls) == WHOLE[3:]


@pytest.mark.parametrize("heading", ["report:", "report: {}", "report: {out: page.html}"])
def test_a_report_is_written_again_when_the_run_has_gone_on(heading: str, calls: list[list[str]]) -> None:
    Path("exp.yaml").write_text(f"{EXP.splitlines()[0]}\n{heading}\n")
    logs = Path("experiments/exp/logs/metrics.jsonl")
    logs.parent.mkdir()
    for row in ("", '{"iter": 1, "phase": "train"}\n'):
        logs.write_text(row)
        assert pipeline.main(["exp.yaml"]) == 0
        assert pipeline.main(["exp.yaml"]) == 0
        assert verbs(calls) == (["report"] if row else ["train", "report"])
    assert Path("page.html").exists() == ("page.html" in heading)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("report: true", "exp.yaml:2: report: got True, wants settings, or {} for none"),
        (
            "report: {out: a.html}\nsweep: {seed: [0, 1]}",
            "exp.yaml:2: report.out: got a.html for every run of a sweep",
        ),
        ("report: {oout: a.html}", "exp.yaml:2: oout: got an unknown setting, wants out"),
    ],
)
def test_a_report_that_cannot_be_is_refused(
    text: str, line: str, calls: list[list[str]], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("exp.yaml").write_text(f"{EXP.splitlines()[0]}\n{text}\n")
    if "oout" in text:  # the verb itself says so
        from deepem.tools import report

        monkeypatch.setattr(runner, "call", lambda words: report.main(words[1:]) if words[0] == "report" else "")
    with pytest.raises(SystemExit) as caught:
        pipeline.main(["exp.yaml"])
    assert caught.value.code == 2
    assert line in capfd.readouterr().err.splitlines()[-1]


def test_the_schema_of_a_pipeline_has_a_heading_per_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert pipeline.main(["--schema"]) == 0
    made = json.loads(capsys.readouterr().out)["properties"]
    assert set(made) == {"defaults", *runner.STAGES, "sweep"}
    for program, flag in {
        "train": "lr",
        "forward": "overlap",
        "segment": "decoder",
        "evaluate": "top",
        "report": "out",
    }.items():
        assert "description" in made[program]["properties"][flag]


def test_a_record_that_was_torn_is_no_record(tmp_path: Path) -> None:
    records, stage = Records(tmp_path), Stage("a", "forward", ["--x"], {})
    out = tmp_path / "out"
    out.write_text("1")
    records.add(stage, [out], stage.made_from())
    assert records.outputs(stage) == [out]
    records.path.write_text(records.path.read_text()[:20])
    assert records.outputs(stage) is None
    assert records.why(stage) == "not done yet"


def test_every_combination_of_a_sweep_is_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(
        "data: synthetic\naff: 1\nsweep: {lr: [1e-3, 3e-4], width: [[4, 8], [8, 16]], seed: [0]}\n"
    )
    points = sweep.points(config_file.read(["a.yaml"]))
    names = [f"lr={lr},width={width},seed=0" for lr in ("1e-3", "3e-4") for width in ("4-8", "8-16")]
    assert [point.name for point in points] == names
    run = runner.Run.of(["a.yaml"], points[3])
    assert (run.options.optimiser.lr, run.options.plug_in_flags["width"]) == (3e-4, [8, 16])
    assert run.folder == Path("experiments/synthetic_aff/lr=3e-4,width=8-16,seed=0")
    for text in ("sweep: {lr: 1}", "sweep: [1]", "sweep: {lr: []}", "sweep: {lr: [1, 1]}"):
        Path("a.yaml").write_text(text)
        with pytest.raises(InputError):
            sweep.points(config_file.read(["a.yaml"]))


FAULTS = {
    "segment": ("", "segment: {treshold: 0.5}", "exp.yaml:5: treshold: got an unknown setting, wants threshold"),
    "value": ("", "segment:\n  threshold: high", "exp.yaml:6: threshold: got high, wants"),
    "decoder": ("", "segment:\n\n  decoder: waterz", "exp.yaml:7: decoder: got waterz, wants one of agglomerate"),
    "forward": ("cpu: true", "overlaps: 0.5", "exp.yaml:2: overlaps: got an unknown setting, wants overlap"),
    "size": ("cpu: true", "chunk_size: [1, 2]", "exp.yaml:2: chunk_size: got 1,2, wants"),
    "evaluate": ("mask: data/t1", "metrics: [arand]", "exp.yaml:3: metrics: got arand, wants one of adapted_rand"),
    "sweep": ("", "sweep: {lr: [1e-3, fast]}", "lr=fast.yaml:2: lr: got fast, wants a number above 0"),
    "sweep of nothing": ("", "sweep: {lrr: [1e-3]}", "lrr: got an unknown setting, wants lr"),
    "program": ("", "segmnt: {threshold: 0.5}", "exp.yaml:5: segmnt"),
}
"""What is replaced in EXP, or nothing to add a line; by what; and what the error says."""


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_a_later_stage_is_found_before_the_training(
    name: str, calls: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    before, after, told = FAULTS[name]
    Path("exp.yaml").write_text(EXP.replace(before, after) if before else f"{EXP}{after}\n")
    shutil.rmtree("experiments")
    with pytest.raises(SystemExit) as caught:
        pipeline.main(["exp.yaml"])
    assert caught.value.code == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("deepem run: error: ")
    assert told in line
    assert ", wants " in line
    assert calls == []


def test_the_table_of_a_sweep(calls: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    Path("exp.yaml").write_text(EXP.splitlines()[0] + "\nsweep: {seed: [0, 1]}\n")
    for seed in (0, 1):
        models = Path(f"experiments/exp/seed={seed}/models")
        models.mkdir(parents=True)
        (models / "model7.chkpt").write_bytes(b"x")
        logs = models.parent / "logs"
        logs.mkdir()
        rows = [{"iter": n, "phase": "test", "loss": 0.5 - 0.1 * seed + n} for n in (1, 0)]
        (logs / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert pipeline.main(["exp.yaml"]) == 0
    assert verbs(calls) == ["train", "train"]
    assert capsys.readouterr().out.splitlines() == [
        "| seed | iterations | test loss | best |",
        "| ---- | ---------- | --------- | ---- |",
        "| 0    | 7          | 0.5       | 0.5  |",
        "| 1    | 7          | 0.4       | 0.4  |",
    ]
    assert pipeline.main(["exp.yaml", "--point", "1"]) == 0
    with pytest.raises(SystemExit):
        pipeline.main(["exp.yaml", "--point", "2"])


def test_the_figures_of_a_table_are_those_of_each_output_and_segmentation() -> None:
    held = [
        {
            "output": "affinity",
            "cut_edges": {"average_precision": 0.5, "by_edge": {"error": 1}},
            "curves": {"error": 1},
        },
        {
            "output": "segmentation",
            "file": "a/t1_affinity_7_seg_0.3.h5",
            "adapted_rand": {"error": 0.25, "precision": 1},
        },
        {"output": "segmentation", "file": "a/t1_affinity_7_seg.h5", "voi": {"split": 1, "merge": 2}},
    ]
    assert dict(sweep.scores(held)) == {
        "affinity average_precision": 0.5, "seg_0.3 adapted_rand error": 0.25, "seg voi split": 1, "seg voi merge": 2,
    }  # fmt: skip


def test_an_array_job_has_a_task_for_each_run(calls: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    Path("exp.yaml").write_text(EXP + "sweep: {seed: [0, 1, 2]}\n")
    assert pipeline.main(["exp.yaml", "--slurm", "--sbatch", "gpus=1", "--time=1:00:00".removeprefix("--")]) == 0
    assert calls == []
    script = Path("experiments/exp/sweep.sbatch")
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    text = script.read_text()
    assert "#SBATCH --array=0-2\n" in text
    assert "#SBATCH --gpus=1\n#SBATCH --time=1:00:00\n" in text


def test_a_task_of_the_array_does_its_run_and_is_queued_again_when_it_was_stopped(tmp_path: Path) -> None:
    """The script with a stand-in for deepem that says what it was given, and one for scontrol."""
    bin = tmp_path / "bin"
    bin.mkdir()
    (bin / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/queued\n')
    (bin / "scontrol").chmod(0o755)
    env = {"PATH": f"{bin}:/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "77"}
    for code, ends in ((0, 0), (3, 3), (85, 0)):
        words = ["sh", "-c", f'echo "$@" > {tmp_path}/given; exit {code}', "x"]
        (tmp_path / "a.sbatch").write_text(sweep.script(["a.yaml"], 3, tmp_path, [], words))
        assert subprocess.run(["bash", str(tmp_path / "a.sbatch")], env=env).returncode == ends
        assert (tmp_path / "given").read_text() == "--point 2\n"
        assert (tmp_path / "queued").exists() == (code == 85)
    assert (tmp_path / "queued").read_text() == "requeue 77_2\n"


@pytest.mark.slow
def test_a_pipeline_from_nothing(tmp_path: Path, verb_env: dict[str, str]) -> None:
    sizes = "synth_size: [12, 64, 64], fov: [8, 32, 32], width: [4, 8], max_iter: 3, eval_iter: 1"
    (tmp_path / "exp.yaml").write_text(
        f"train: {{exp_name: demo, data: synthetic, {sizes}, aff: 1, mit: 1, cpu: true}}\n"
        "forward: {data_dir: data, test_ids: [t1], cpu: true}\nevaluate:\n  segment: none\nreport:\n"
    )

    def deepem(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "deepem", *words]
        return subprocess.run(command, cwd=tmp_path, env=verb_env, capture_output=True, text=True)

    made = deepem("synthesize", "--layout", "synthetic", "--ids", "t1", "--size", "12,64,64", "--data_dir", "data")
    assert made.returncode == 0, made.stderr
    done = deepem("run", "exp.yaml")
    assert done.returncode == 0, done.stderr
    assert {row["output"] for row in json.loads((tmp_path / "experiments/demo/scores/t1.json").read_text())} == {
        "affinity", "mitochondria",
    }  # fmt: skip
    again = deepem("run", "exp.yaml")
    assert again.stderr.count("done before") == 4
    assert "AP of cut edges" in (tmp_path / "experiments/demo/report.html").read_text()
