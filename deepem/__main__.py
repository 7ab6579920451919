"""The command line: ``deepem VERB``, ``python -m deepem VERB``, or from anywhere ``python CHECKOUT/deepem VERB``.

Each verb has a line in VERBS and a module with ``main(words) -> int | None``, imported when the verb is called.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

if __package__ in (None, ""):  # run as a folder: put the checkout first on the path, in place of deepem/
    sys.path[0] = str(Path(__file__).resolve().parents[1])


class Verb(NamedTuple):
    """The module with a verb's `main`, and its line in --help."""

    module: str
    help: str


VERBS = {
    "train": Verb("deepem.train.run", "train a network, or resume a run"),
    "forward": Verb("deepem.test.forward", "predict volumes with a trained network"),
    "segment": Verb("deepem.tools.segment", "turn predictions of any size into segments"),
    "evaluate": Verb("deepem.tools.evaluate", "score predictions against the truth"),
    "view": Verb("deepem.tools.view", "look at volumes and predictions in neuroglancer"),
    "check": Verb("deepem.tools.check", "check the volumes of a run, and report problems"),
    "report": Verb("deepem.tools.report", "write a page about a run: curves, pictures, scores, options"),
    "preview": Verb("deepem.tools.preview", "draw the samples that the network will see"),
    "run": Verb("deepem.tools.pipeline", "train, predict, segment, evaluate and report as one YAML file says"),
    "suggest": Verb("deepem.tools.suggest", "choose what to annotate next"),
    "convert": Verb("deepem.tools.convert", "turn arguments or a checkpoint's options into a YAML file"),
    "summary": Verb("deepem.tools.summary", "show a network's parameters, field of view, FLOPs and memory"),
    "export": Verb("deepem.tools.export", "write a checkpoint for serving: safetensors, torch.export, ONNX"),
    "fetch": Verb("deepem.tools.fetch", "get a published checkpoint by its name, and check it"),
    "synthesize": Verb("deepem.tools.synthesize", "write volumes of synthetic tissue"),
    "prepare": Verb("deepem.tools.prepare", "convert a public data set into volumes to train on"),
    "prepare cremi": Verb("deepem.tools.prepare_cremi", "download CREMI's samples and convert them"),
    "queue plan": Verb("deepem.tools.queue_plan", "cut a prediction into tasks for many machines"),
    "queue enqueue": Verb("deepem.tools.queue_enqueue", "put the remaining tasks into a queue"),
    "queue work": Verb("deepem.tools.queue_work", "do tasks of a queue; run it on every machine"),
    "queue status": Verb("deepem.tools.queue_status", "show the progress of a plan"),
    "help": Verb("deepem.tools.guide", "show a topic of the manual, or list the topics"),
}

HEAD = """\
usage: deepem VERB ...

Trains multi-task networks for volume electron microscopy and predicts volumes of any size.
The shortest run:  deepem train --data deepem.data.dataset.synthetic --aff 1

"""
FOOT = """
deepem VERB --help: the flags of a verb; deepem help: topics of the manual; deepem --version
"""


def main(words: Sequence[str] | None = None) -> int:
    """Call a verb with the words that follow it, and return its exit code.

    Raises:
        SystemExit: some verbs exit by themselves.
    """
    words = sys.argv[1:] if words is None else list(words)
    if words[:1] == ["--version"]:
        from deepem import __version__

        sys.stdout.write(f"deepem {__version__}\n")
        return 0
    if words[:1] in ([], ["-h"], ["--help"]):
        (sys.stdout if words else sys.stderr).write(overview())
        return 0 if words else 2
    from importlib import import_module

    name = next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in VERBS), None)
    if name is None:
        group = [verb for verb in VERBS if verb.startswith(f"{words[0]} ")]
        if group and words[1:2] in (["-h"], ["--help"]):
            sys.stdout.write(overview(group))
            return 0
        sys.stderr.write(f"deepem: error: {unknown(words)}\n")
        return 2
    verb = import_module(VERBS[name].module)
    return verb.main(words[len(name.split()) :]) or 0


def overview(names: Sequence[str] = tuple(VERBS)) -> str:
    """Return the text of --help, with one line per verb."""
    width = max(map(len, names)) + 2
    return HEAD + "".join(f"  {name:<{width}}{VERBS[name].help}\n" for name in names) + FOOT


def unknown(words: Sequence[str]) -> str:
    """Return the error for an unknown verb, with the nearest verb and the list of all."""
    from difflib import get_close_matches

    group = [verb for verb in VERBS if verb.startswith(f"{words[0]} ")]
    if group and len(words) == 1:
        return f"verb: got {words[0]} alone, wants one of: {', '.join(group)}"
    given = " ".join(words[: 2 if group else 1])
    known = group or list(VERBS)
    near = get_close_matches(given, known, 1, 0.5)
    nearest = f"{near[0]}, which is nearest, or " if near else ""
    return f"verb: got {given}, wants {nearest}one of: {', '.join(known)}"


if __name__ == "__main__":
    raise SystemExit(main())
