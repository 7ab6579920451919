"""Bad input as one line on stderr: the parser whose errors are InputErrors, and the context that prints them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from deepem.cli import config_places
from deepem.cli.naming import with_dashes
from deepem.utils.errors import InputError, of_environment
from deepem.utils.exit_codes import BAD_INPUT
from deepem.utils.terminal import lasting_streams

PROGRAMS_OF_FILES = {"run.py": "train", "forward.py": "forward"}
"""Name of a program in errors -> its heading in YAML files of settings."""


def heading_of(program: str) -> str:
    """Return the heading of a program in YAML files of settings."""
    return PROGRAMS_OF_FILES.get(program, program.removeprefix("deepem "))


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are InputErrors, and so one line."""

    def error(self, message: str) -> NoReturn:
        """Rewrite argparse's message in the form of all other errors."""
        where, _, words = message.removeprefix("argument ").partition(": ")
        where = where.split("/")[-1]
        known = re.match(r"expected (.+?) arguments?$", words)
        if words.startswith("got "):
            raise InputError(where, *words.removeprefix("got ").split(", wants ", 1))
        if known:
            nothing = known[1] in ("one", "at least one")
            raise InputError(where, "nothing" if nothing else "another number", f"{known[1]} value")
        raise InputError(where, words or message, "another value")


@contextmanager
def one_line_errors(program: str, typed: Sequence[str] | None = None) -> Iterator[set[str]]:
    """Turn an InputError, or an error of the operating system, into one line on stderr and exit code 2.

    Any other error keeps its traceback. Within this context, a failing print never ends the program.

    Yields a set for the names of flags. If an error of the library names a parameter in this set, the line shows it
    with dashes.

    Args:
        program: The name at the start of the line.
        typed: The command line, or None for the process's own. If a YAML file set the flag, the line names the file and
            line.
    """
    flags = set[str]()
    with lasting_streams():
        try:
            yield flags
        except (InputError, OSError, MemoryError, RuntimeError) as error:
            told = error if isinstance(error, InputError) else of_environment(error)
            if told is None:
                raise
            told = config_places.explained(told, heading_of(program), sys.argv[1:] if typed is None else typed)
            line = " ".join(f"{with_dashes(told.where, flags)}: got {told.got}, wants {told.wants}".split("\n"))
            sys.stderr.write(f"{program}: error: {line}\n")
            sys.stderr.flush()
            raise SystemExit(BAD_INPUT) from None
