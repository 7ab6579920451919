"""A checkpoint as files for serving: weights, programs, and a card that says what somebody who runs them must know."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepem.build.stored import stored_run
from deepem.scan.kinds import KINDS
from deepem.tasks import Task, to_plain
from deepem.tools import output
from deepem.utils import checkpoint
from deepem.utils.errors import InputError
from deepem.utils.intensity import Percentiles, from_plain


class Served(nn.Module):
    """Grey values in [0, 1] to probabilities, in the order of the heads.

    The weights are held under flat names: exported programs are written out as Python, where a part of a network may
    not be called `in`.
    """

    def __init__(self, network: nn.Module, tasks: Sequence[Task]) -> None:
        super().__init__()
        heads = [task.name for task in tasks]
        self.probabilities = [KINDS[task.kind].probabilities for task in tasks]
        self.hidden, self.heads = [network], heads  # in a list, it is no part of this module
        self.flat = {name: name.replace(".", "__") for name in network.state_dict()}
        for name, value in network.state_dict().items():
            self.register_buffer(self.flat[name], value)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """(N, C, Z, Y, X) -> one (N, C, Z, Y, X) per head."""
        weights = {name: getattr(self, flat) for name, flat in self.flat.items()}
        outputs = torch.func.functional_call(self.hidden[0], weights, (image,))
        return tuple(made(outputs[head]) for head, made in zip(self.heads, self.probabilities, strict=True))


def find(exp_name: str, number: int, best: bool) -> checkpoint.State:
    """The checkpoint to export."""
    models = Path("experiments", exp_name.removeprefix("experiments/"), "models")
    if best or number:
        return checkpoint.read(models / "best.chkpt" if best else checkpoint.path_of(models, number))
    found = checkpoint.newest(models)
    if found is None:
        raise InputError(f"--exp_name {exp_name}", f"no readable checkpoint in {models}", "a trained experiment")
    return found[1]


def export(state: checkpoint.State, out: Path, raw: bool) -> None:
    """Write everything that can be written."""
    if "options" not in state or "spec" not in state:
        raise InputError("checkpoint", "one without options", "one written by this program")
    with output.writing("--out", out):
        out.mkdir(parents=True, exist_ok=True)
    run, (shape,) = stored_run(state, "checkpoint"), state["spec"][0].values()
    network = run.network()
    averaged = "ema" in state and not raw
    network.load_state_dict(state["ema" if averaged else "state_dict"])
    served = Served(network.eval(), run.tasks).eval()
    card = described(state, run.tasks, averaged)
    with output.writing("--out", out):
        (out / "model.json").write_text(json.dumps(card, indent=2) + "\n")
        (out / "MODEL_CARD.md").write_text(in_words(card))
    image = torch.rand(2, *shape)
    with torch.no_grad():
        expected = served(image)
    for name, write in {"model.safetensors": safetensors, "model.pt2": program, "model.onnx": onnx}.items():
        try:
            difference = write(served, image, expected, out / name, card)
            output.say(f"{out / name}: largest difference of a probability {difference:.2g}")
        except Exception as error:  # noqa: BLE001 - whatever an exporter cannot do is told, and the next one tried
            (out / name).unlink(missing_ok=True)
            output.say(f"{out / name}: not written: {type(error).__name__}: {str(error).strip().splitlines()[0][:150]}")


def described(state: checkpoint.State, chosen: Sequence[Task], averaged: bool) -> dict[str, Any]:
    """What somebody needs to know who runs the network."""
    options = state["options"]
    return {
        "iteration": state["iter"],
        "weights": "moving average" if averaged else "as trained",
        "model": options["model"],
        "input": {name: list(shape) for name, shape in state["spec"][0].items()},
        "outputs": {name: list(shape) for name, shape in state["spec"][1].items()},
        "tasks": {
            t.name: {"kind": t.kind, "weight": options[t.flag], "edges": [list(e) for e in t.edges], "row": to_plain(t)}
            for t in chosen
        },
        "normalisation": f"grey values in [0, 1]: {normalisation(state)}; outputs are probabilities",
        "intensity": state.get("intensity"),
        "axes": "N, C, Z, Y, X; an edge (dz, dy, dx) relates voxel v to v - (dz, dy, dx)",
        "data": {name: options[name] for name in ("data", "train_ids", "val_ids", "augment")},
        "optimiser": {name: options[name] for name in ("optim", "lr", "batch_size", "seed", "amp")},
    }


def normalisation(state: checkpoint.State) -> str:
    """How grey values become numbers in [0, 1]."""
    found = from_plain(state.get("intensity"))
    if found is None:
        return "uint8 divided by 255"
    if isinstance(found, Percentiles):
        return f"the percentiles {found.low:g} and {found.high:g} of each volume become 0 and 1, the rest is clipped"
    return f"{found.in_words()} (by channel) become 0 to 1, the rest is clipped"


def in_words(card: dict[str, Any]) -> str:
    """The model card as a page."""
    lines = ["# Model card", ""]
    for key, value in card.items():
        if isinstance(value, dict):
            lines += [f"- **{key}**", *(f"  - {name}: {inner}" for name, inner in value.items())]
        else:
            lines.append(f"- **{key}**: {value}")
    return "\n".join(lines) + "\n"


def largest(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    """The largest difference of two results."""
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def safetensors(served: Served, image: Tensor, expected: tuple[Tensor, ...], path: Path, card: dict[str, Any]) -> float:
    """Weights under the names of the checkpoint."""
    from safetensors.torch import load_file, save_file

    network = served.hidden[0]
    save_file({n: v.contiguous() for n, v in network.state_dict().items()}, path, metadata={"card": json.dumps(card)})
    network.load_state_dict(load_file(path))
    with torch.no_grad():
        return largest(served(image), expected)


def program(served: Served, image: Tensor, expected: tuple[Tensor, ...], path: Path, card: dict[str, Any]) -> float:
    """The exported program, loaded again and run."""
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(served, (image,), dynamic_shapes=({0: batch},))
    torch.export.save(exported, path, extra_files={"card.json": json.dumps(card)})
    with torch.no_grad():
        return largest(torch.export.load(path).module()(image), expected)


def onnx(served: Served, image: Tensor, expected: tuple[Tensor, ...], path: Path, card: dict[str, Any]) -> float:
    """The ONNX graph, run again where onnxruntime is installed, else by the reference evaluator."""
    from onnx.reference import ReferenceEvaluator

    made = torch.onnx.export(served, (image,), dynamo=True, verbose=False, output_names=served.heads)
    assert made is not None
    given: dict[Any, Any] = {made.model.graph.inputs[0].name: image.numpy()}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        beside = Path(folder) / path.name
        made.save(str(beside))
        try:
            from onnxruntime import InferenceSession

            found = InferenceSession(str(beside)).run(None, given)
        except ImportError:
            found = ReferenceEvaluator(str(beside)).run(None, given)
        beside.replace(path)
    return largest(tuple(torch.from_numpy(array) for array in found), expected)
