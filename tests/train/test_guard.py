"""A NaN never reaches the weights, and leaves what is needed to find where it came from."""

from __future__ import annotations

import json
import math

import pytest
import torch

from deepem.train import replay

NAN = "batch['input'][0, 0, 0, 0, 0] = float('nan')"


def test_a_step_with_nan_is_skipped_and_dumped(lab, capsys):
    bad = lab.mishap("bad", 3, NAN)
    lab.train("run", "--max_iter", 4, "--chkpt_intv", 1, "--modifier", bad, "--skip_nan", 1, "--ema", 0.9)
    before, after = lab.state("run", 2), lab.state("run", 3)
    for key in ("state_dict", "ema"):
        assert all(torch.equal(before[key][name], after[key][name]) for name in before[key])
    assert all(value.isfinite().all() for value in lab.state("run", 4)["state_dict"].values())
    assert after["skipped"] == 1
    rows = lab.rows("run", "train")
    assert all(math.isfinite(row[name]) for row in rows for name in ("affinity", "mitochondria") if name in row)
    assert [row.get("skipped", 0) for row in rows] == [0, 0, 1]
    error = capsys.readouterr().err
    assert "warning: iteration 3 skipped, 1 of 1 allowed: affinity nan" in error
    assert "batch not finite in input; samples: 2 of seed 0 of" in error

    folder = lab.folder / "experiments" / "run" / "nan"
    facts = json.loads((folder / "iter3.json").read_text())
    assert facts["samples"][0].keys() == {"index", "seed", "volume", "location"}
    dump = torch.load(folder / "iter3.pt", weights_only=True)
    assert dump["batch"]["input"].isnan().any()

    replay.main([str(folder / "iter3.pt"), "--model", "net.py"])
    told = capsys.readouterr().out
    assert "input: not finite" in told
    assert "affinity: loss nan" in told


@pytest.mark.parametrize("optim", ["Adam", "SGD", "Adagrad", "RMSprop"])
def test_a_skipped_step_leaves_the_optimiser_as_it_was(lab, optim):
    """Fused ones are launched before it is known that the step is bad; RMSprop is none."""
    bad = lab.mishap("bad", 1, NAN)
    lab.train("run", "--max_iter", 2, "--chkpt_intv", 1, "--modifier", bad, "--skip_nan", 1, "--optim", optim)
    skipped, after = lab.state("run", 1), lab.state("run", 2)
    values = [value for state in skipped["optimizer"]["state"].values() for value in state.values()]
    fresh = {0.0, 1e-10} if optim == "Adagrad" else {0.0}  # Adagrad may begin above 0
    assert all(set(torch.as_tensor(value).unique().tolist()) <= fresh for value in values)
    assert all(value.isfinite().all() for value in after["state_dict"].values())
    for state in after["optimizer"]["state"].values():
        assert all(torch.as_tensor(value).isfinite().all() for value in state.values())
        assert state.get("step", 1) == 1


def test_the_run_ends_when_the_budget_is_spent(lab, capsys):
    bad = lab.mishap("bad", 3, NAN)
    assert lab.fails("run", "--max_iter", 4, "--chkpt_intv", 1, "--modifier", bad) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("run.py: error: iteration 3: got affinity nan")
    assert "replay: python -m deepem.train.replay experiments/run/nan/iter3.pt --model net.py" in line
    lab.calm()
    lab.train("run", "--max_iter", 4, "--modifier", bad)
    assert lab.state("run", 4)["skipped"] == 0


def test_an_infinite_gradient_is_caught_too(lab):
    """A loss may be finite where its gradient is not: sqrt at zero."""
    (lab.folder / "sqrt.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a = nn.Conv3d(1, 3, 1)\n"
        "        nn.init.zeros_(self.a.weight); nn.init.zeros_(self.a.bias)\n"
        "    def forward(self, x):\n"
        "        return {'affinity': self.a(x).abs().sqrt(), 'mitochondria': self.a(x)[:, :1]}\n"
        "def create_model(*, in_spec, out_spec):\n"
        "    return Net()\n"
    )
    assert lab.fails("run", "--max_iter", 2, "--model", "sqrt.py") == 2
    facts = json.loads((lab.folder / "experiments" / "run" / "nan" / "iter1.json").read_text())
    assert math.isfinite(facts["values"]["affinity"])
    assert not math.isfinite(facts["values"]["gradient"])


def test_weights_that_are_not_finite_are_never_saved(lab, capsys):
    assert lab.fails("run", "--max_iter", 1, "--optim", "SGD", "--lr", "3e38") == 2
    assert "iteration 1: got weights that are not finite" in capsys.readouterr().err
    assert not list(lab.models("run").glob("*.chkpt"))
