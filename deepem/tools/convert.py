"""Turn an @file of arguments, or the options in a checkpoint, into a YAML file of settings.

    deepem convert experiments/demo/train.args --out demo.yaml
    deepem convert experiments/demo/models/model1000.chkpt --out demo.yaml
    deepem convert forward.args --program forward

`deepem train --config demo.yaml` then does the same.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from deepem.cli import config_text, forward_parser, train_parser
from deepem.cli.flags import Flag, Group, flag, without_none
from deepem.cli.naming import PLUG_IN_FLAGS
from deepem.cli.parser import leading, read_group
from deepem.tools import output
from deepem.utils.errors import InputError

PROGRAM = "deepem convert"


@dataclass(frozen=True)
class ConvertOptions(Group):
    """What to convert to YAML."""

    title = "files"
    out: Path | None = flag(None, "YAML file to write (default: standard output)", metavar="FILE")
    program: Literal["train", "forward"] = flag("train", "the program that the arguments belong to")


def main(words: Sequence[str]) -> int:
    """Read the command line and convert."""
    with output.errors_of(PROGRAM, "out"):
        names, rest = leading([word.removeprefix("@") for word in words])
        own = read_group(PROGRAM, __doc__, ConvertOptions, rest, f"{PROGRAM} FILE --out demo.yaml")
        if len(names) != 1:
            raise InputError("FILE", " ".join(names) or "nothing", "one @file or checkpoint")
        if own.out:
            output.check_file("--out", own.out)
        text = as_yaml(names[0], own.program)
        if own.out is None:
            output.say(text.rstrip("\n"))
        else:
            with output.writing("--out", own.out):
                own.out.write_text(text)
    return 0


def as_yaml(source: str, program: str) -> str:
    """Return the settings of an @file or a checkpoint as YAML.

    Raises:
        InputError: the file cannot be read, or contains no options.
    """
    if source.endswith(".chkpt"):
        from deepem.utils import checkpoint

        options = checkpoint.read(Path(source)).get("options")
        if not isinstance(options, Mapping):
            raise InputError(source, "a checkpoint without options", "one that this program wrote")
        return of_options(options)
    words = [f"@{source.removeprefix('@')}"]
    if program == "train":
        return train_parser.parse(words).settings
    reader = forward_parser.parser()
    values, rest = reader.read_known(words)
    if rest:
        raise InputError(source, rest[0], "flags of deepem forward")
    return config_text.as_yaml(values, reader.flags)


def of_options(options: Mapping[str, Any]) -> str:
    """Return the options in a checkpoint as YAML."""
    words = []
    for name in PLUG_IN_FLAGS:
        given = options.get(name)
        if given:
            words += [f"--{name}", *([given] if isinstance(given, str) else given)]
    reader = train_parser.parser()
    reader.read(words)
    values = {name: restored(flag, options[name]) for name, flag in reader.flags.items() if name in options}
    return config_text.as_yaml(values, reader.flags)


def restored(flag: Flag, value: Any) -> Any:
    """Convert a value to the type of its flag; files store tuples as lists."""
    kind = without_none(flag.type)
    inner = (typing.get_args(kind) or (None,))[0]
    if isinstance(value, list) and typing.get_origin(kind) is tuple:
        return tuple(value)
    if isinstance(value, list) and typing.get_origin(inner) is tuple:
        return [tuple(part) for part in value]
    return value
