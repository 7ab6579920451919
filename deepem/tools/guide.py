"""Show a topic of the manual: ``deepem help TOPIC``.

A topic is a text file in ``deepem/tools/topics``, and its first line is its title. The topic `flags` is generated from
the flag declarations of all programs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from deepem.cli import forward_parser, migration, signatures, train_parser
from deepem.cli.arguments import help_of
from deepem.cli.flags import Flag, Group, flags_of
from deepem.cli.plugins import KINDS, siblings
from deepem.tools import output
from deepem.utils.errors import InputError

PROGRAM = "deepem help"
TOPICS = Path(__file__).with_name("topics")
FLAGS, MIGRATE = "flags", "migrate"


def main(words: Sequence[str]) -> int:
    """Show the topic, or the list of topics."""
    with output.errors_of(PROGRAM):
        if not words or words[0] in ("-h", "--help"):
            output.say(overview())
            return 0
        topic, *more = words
        if topic == FLAGS:
            output.say(flags(more[0] if more else None))
            return 0
        if topic == MIGRATE and not more:
            output.say(migration.page().rstrip())
            return 0
        there = topics()
        if topic not in there or more:
            near = difflib.get_close_matches(topic, [*there, FLAGS, MIGRATE], 1)
            wants = f"{near[0]}, or " if near else ""
            raise InputError("TOPIC", " ".join(words), f"{wants}one of {', '.join([*there, FLAGS, MIGRATE])}")
        output.say((TOPICS / f"{topic}.txt").read_text(encoding="utf-8").rstrip())
    return 0


def topics() -> dict[str, str]:
    """Return the topics that are files, with their first lines."""
    files = sorted(TOPICS.glob("*.txt"))
    return {path.stem: path.read_text(encoding="utf-8").split("\n", 1)[0] for path in files}


def overview() -> str:
    """Return one line per topic."""
    known = topics() | {FLAGS: "Every flag of every program, or of one: deepem help flags train"}
    known |= {MIGRATE: "What took whose place from the public DeepEM: programs, flags, imports, functions"}
    width = max(map(len, known)) + 2
    return "deepem help TOPIC:\n\n" + "\n".join(f"  {name:<{width}}{line}" for name, line in known.items())


def flags(program: str | None = None) -> str:
    """Return the flags of all programs or of one, by group.

    Raises:
        InputError: there is no such program.
    """
    known = dict(programs())
    known |= {
        f"{kind} {name}": [(f"with {KINDS[kind].flag} {name}", found)] for kind, name, found in _plug_ins() if found
    }
    if program is not None:
        near = [name for name in known if program in (name, *name.split())]
        if not near:
            raise InputError("PROGRAM", program, f"one of {', '.join(name for name in known if ' ' not in name)}")
        known = {name: known[name] for name in near}
    return "\n\n".join(_program(name, groups) for name, groups in known.items())


Groups = list[tuple[str, list[Flag]]]


def programs() -> Iterator[tuple[str, Groups]]:
    """Return (program, its groups) for all programs that declare their flags."""
    yield "train", list(train_parser.parser().titles.items())
    yield "forward", list(forward_parser.parser().titles.items())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if not re.search(r"^class \w+\(Group\)", path.read_text(encoding="utf-8"), re.M):
            continue
        module = import_module(f"{__package__}.{path.stem}")
        own = [
            kind
            for kind in vars(module).values()
            if isinstance(kind, type) and issubclass(kind, Group) and kind.__module__ == module.__name__
        ]
        name = str(getattr(module, "PROGRAM", f"deepem {path.stem}")).removeprefix("deepem ")
        yield name, [(group.title, flags_of(group)) for group in own]


def _plug_ins() -> Iterator[tuple[str, str, list[Flag]]]:
    for kind in KINDS:
        for name in siblings(kind):
            yield kind, name, signatures.flags_unloaded(kind, name)


def _program(name: str, groups: Groups) -> str:
    lines = [name, "=" * len(name)]
    for title, found in groups:
        lines += ["", title]
        for flag in found:
            lines.append(f"  --{flag.name} {_value(flag)}".rstrip())
            lines.append(f"        {help_of(flag).replace('%%', '%')}")
    return "\n".join(lines)


def _value(flag: Flag) -> str:
    form = flag.form
    if flag.is_switch or form is None:
        return "(--no-...)" if flag.is_switch and flag.negatable else ""
    word = flag.metavar or form.metavar or ""
    return f"{word} ..." if form.many is not None else word
