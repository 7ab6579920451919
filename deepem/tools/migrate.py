"""Show what took whose place from the public DeepEM: programs, flags, imports and functions."""

from __future__ import annotations

from collections.abc import Sequence

from deepem.cli.migration import page
from deepem.tools import output


def main(words: Sequence[str]) -> int:
    """Show the page."""
    output.say(page().rstrip())
    return 0
