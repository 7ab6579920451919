"""Files of arguments: read line by line as a shell would, and written so that they read back the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deepem.cli.flags import Flag
from deepem.cli.words import words_of
from deepem.utils.errors import InputError

_WORD = re.compile(r"""(?:[^ \t\r'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+(?![^ \t\r])""")
_CONTINUED = re.compile(r"(?<!\\)(?:\\\\)*\\$")


def read(name: str) -> list[str]:
    """Return the words of a file.

    A # at the start of a word begins a comment, and a backslash at the end of a line joins it to the next. A quotation
    must end on its line, so two stray apostrophes far apart are reported as two errors instead of one long word.

    Raises:
        InputError: the file cannot be read or parsed.
    """
    words, held, first = list[str](), "", 1
    for number, line in enumerate(_lines(name), 1):
        first = first if held else number
        held += line
        found = _split(held)
        if found is None and _CONTINUED.search(held):
            held = held[:-1] or " "
            continue
        if found is None:
            raise InputError(f"@{name}, line {first}", held.strip(), "each quote closed, or a backslash before it")
        words, held = words + found, ""
    return words


def _lines(name: str) -> Iterator[str]:
    """Yield the lines, then an empty line, which completes a last line that ends in a backslash."""
    try:
        whole = Path(name).read_bytes()
    except OSError as error:
        raise InputError(f"@{name}", error.strerror, "a file of arguments") from None
    for number, line in enumerate([*whole.replace(b"\r\n", b"\n").split(b"\n"), b""], 1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"@{name}, line {number}", f"the byte {line[error.start]:#x}, which is not UTF-8", "text in UTF-8"
            ) from None


def _split(line: str) -> list[str] | None:
    """Split a line into words up to a comment; None if a quotation or a backslash is left open."""
    words, at = list[str](), 0
    while (at := len(line) - len(line[at:].lstrip(" \t\r"))) < len(line) and line[at] != "#":
        word = _WORD.match(line, at)
        if word is None:
            return None
        words += shlex.split(word[0])
        at = word.end()
    return words


def in_words(values: Mapping[str, Any], flags: Mapping[str, Flag]) -> list[str]:
    """Write values as lines of an @file that give the same values when read. Defaults are left out."""
    lines = []
    for name, flag in flags.items():
        value = values.get(name)
        if name not in values or value == flag.default or (value is None and flag.is_switch):
            continue
        if flag.is_switch:
            lines.append(f"--{name}" if value else f"--no-{name}")
            continue
        texts = words_of(list(value) if flag.form and flag.form.many and isinstance(value, tuple) else value)
        if len(texts) == 1 and texts[0].startswith(("-", "@")):
            lines.append(shlex.join([f"--{name}={texts[0]}"]))  # a value that looks like a flag or an @file
        else:
            lines.append(shlex.join([f"--{name}", *texts]))
    return lines
