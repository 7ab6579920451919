"""Export a checkpoint for serving: weights, exported programs, and a model card with all that users must know."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepem.build.loading import CARD, WEIGHTS, probabilities_of
from deepem.build.stored import StoredRun, stored_run
from deepem.tasks import Task
from deepem.tools import output
from deepem.tools.model_card import described, in_words
from deepem.utils import checkpoint
from deepem.utils.errors import InputError, of_environment, reason
from deepem.utils.files import replacing, run_folder, write_text
from deepem.utils.provenance import checksum, provenance

CARD_IN_WORDS = "MODEL_CARD.md"


class Served(nn.Module):
    """Maps grey values in [0, 1] to probabilities, in the order of the heads.

    The weights have flat names, because exported programs are Python code, in which a module cannot be called `in`.
    """

    def __init__(self, network: nn.Module, tasks: Sequence[Task]) -> None:
        super().__init__()
        heads = [task.name for task in tasks]
        self.probabilities = [probabilities_of(task) for task in tasks]
        self.hidden, self.heads = [network], heads  # the list hides it from this module's children
        self.flat = {name: name.replace(".", "__") for name in network.state_dict()}
        for name, value in network.state_dict().items():
            self.register_buffer(self.flat[name], value)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map (N, C, Z, Y, X) to one (N, C, Z, Y, X) per head."""
        weights = {name: getattr(self, flat) for name, flat in self.flat.items()}
        outputs = torch.func.functional_call(self.hidden[0], weights, (image,))
        return tuple(made(outputs[head]) for head, made in zip(self.heads, self.probabilities, strict=True))


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint to export.

    Attributes:
        path: Its file.
        state: Its contents.
    """

    path: Path
    state: checkpoint.State


def find(exp_name: str, number: int, best: bool) -> Checkpoint:
    """Load the checkpoint to export.

    Raises:
        InputError: the checkpoint does not exist or cannot be read.
    """
    models = run_folder(exp_name) / "models"
    if best or number:
        path = models / "best.chkpt" if best else checkpoint.path_of(models, number)
        return Checkpoint(path, checkpoint.read(path))
    found = checkpoint.newest(models)
    if found is None:
        raise InputError(f"--exp_name {exp_name}", f"no readable checkpoint in {models}", "a trained experiment")
    return Checkpoint(checkpoint.path_of(models, found[0]), found[1])


@dataclass(frozen=True)
class Prepared:
    """A network that is ready to be written.

    Attributes:
        served: The network.
        card: What its users must know; see `described`.
        shape: Its patch, (C, Z, Y, X).
        run: How it was trained.
    """

    served: Served
    card: dict[str, Any]
    shape: tuple[int, ...]
    run: StoredRun


def prepare(found: Checkpoint, raw: bool, model: str | None = None) -> Prepared:
    """Build the network of a checkpoint and its card.

    Args:
        found: The checkpoint.
        raw: Take the trained weights instead of their average.
        model: The model module, instead of the one that the checkpoint names.

    Raises:
        InputError: the checkpoint has no options, or its outputs are objects.
    """
    state = found.state
    if "options" not in state or "spec" not in state:
        raise InputError("checkpoint", "one without options", "one written by this program")
    if lacking := [name for name in ("iter",) if state.get(name) is None]:
        raise InputError(found.path, f"a checkpoint without {lacking[0]}", "one written by this program")
    run, (shape,) = stored_run(state, found.path, model), state["spec"][0].values()
    network = run.network()
    averaged = "ema" in state and not raw
    checkpoint.load_weights(network, checkpoint.weights_of(state, found.path, raw=raw), found.path)
    served = Served(network.eval(), run.tasks).eval()
    with torch.no_grad():
        shapes = [tuple(output.shape[1:]) for output in served(torch.zeros(1, *shape))]
    card = described(state, run, averaged, shapes)
    card["provenance"] = provenance(checkpoint=str(found.path), checkpoint_sha256=checksum(found.path))
    card["trained"] = state.get("provenance", {})
    return Prepared(served, card, tuple(shape), run)


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write the card twice, for programs and for people."""
    write_text(folder / CARD, json.dumps(card, indent=2) + "\n")
    write_text(folder / CARD_IN_WORDS, in_words(card))


def export(found: Checkpoint, out: Path, raw: bool, model: str | None = None) -> None:
    """Write every file that can be written, replacing the files of an earlier export one by one.

    Args:
        found: The checkpoint.
        out: The folder.
        raw: Take the trained weights instead of their average.
        model: The model module, instead of the one that the checkpoint names.

    Raises:
        InputError: the checkpoint has no options, or the files cannot be written. The files of this export are
            removed in that case.
    """
    output.check_folder("--out", out)
    made = prepare(found, raw, model)
    with output.writing("--out", out):
        out.mkdir(parents=True, exist_ok=True)
    written = [out / CARD, out / CARD_IN_WORDS]
    try:
        with output.writing("--out", out):
            write_card(out, made.card)
        image = torch.rand(3, *made.shape)
        with torch.no_grad():
            expected = made.served(image)
        for name, write in {WEIGHTS: safetensors, "model.pt2": program, "model.onnx": onnx}.items():
            written.append(out / name)
            _write(write, made.served, image, expected, out / name, made.card)
    except InputError:
        for path in written:  # no card is better than one without weights or beside files of an older export
            path.unlink(missing_ok=True)
        raise


def _write(
    write: Callable[..., float], served: Served, image: Tensor, expected: tuple[Tensor, ...], path: Path, card: Any
) -> None:
    """Write one file, and report how exact it is or why it was not written.

    Raises:
        InputError: the file cannot be written, for example because the disk is full.
    """
    try:
        with replacing(path) as beside:
            difference = write(served, image, expected, beside, card)
            mask = os.umask(0)
            os.umask(mask)
            beside.chmod(0o666 & ~mask)  # safetensors writes files that the group cannot read
        output.say(f"{path}: largest difference of a probability {difference:.2g}")
    except Exception as error:  # report why this exporter failed, and try the next
        path.unlink(missing_ok=True)
        if (told := _of_disk(error)) is not None:
            raise InputError("--out", f"{path}: {told}", "room on the disk, and in the quota") from error
        said = (str(error).strip().splitlines() or [""])[0]
        output.say(f"{path}: not written: {type(error).__name__}: {said[:150]}")


def _of_disk(error: BaseException) -> str | None:
    """Return the message if a full or failing disk caused an error; libraries wrap it in their own exceptions."""
    words = ("No space left", "quota exceeded", "os error 28", "os error 122", "File too large", "unexpected pos")
    seen: BaseException | None = error
    while seen is not None:
        if of_environment(seen) is not None or any(w.lower() in str(seen).lower() for w in words):
            return reason(seen)
        seen = seen.__cause__ or seen.__context__
    return None


def largest(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    """Return the largest difference between two results."""
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


def safetensors(served: Served, image: Tensor, expected: tuple[Tensor, ...], path: Path, card: dict[str, Any]) -> float:
    """Write the weights under the names of the checkpoint."""
    from safetensors.torch import load_file, save_file

    network = served.hidden[0]
    save_file({n: v.contiguous() for n, v in network.state_dict().items()}, path, metadata={"card": json.dumps(card)})
    network.load_state_dict(load_file(path))
    with torch.no_grad():
        return largest(served(image), expected)


def program(served: Served, image: Tensor, expected: tuple[Tensor, ...], path: Path, card: dict[str, Any]) -> float:
    """Export the program, load it again and run it."""
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(served, (image,), dynamic_shapes=({0: batch},))
    torch.export.save(exported, path, extra_files={"card.json": json.dumps(card)})
    with torch.no_grad():
        return largest(torch.export.load(path).module()(image), expected)


def onnx(served: Served, image: Tensor, expected: tuple[Tensor, ...], path: Path, card: dict[str, Any]) -> float:
    """Export the ONNX graph and run it with onnxruntime if installed, else with the reference evaluator."""
    from onnx.reference import ReferenceEvaluator

    batch = torch.export.Dim("batch", min=1)
    made = torch.onnx.export(
        served, (image,), dynamo=True, verbose=False, output_names=served.heads, dynamic_shapes=({0: batch},)
    )
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
