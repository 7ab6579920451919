"""The exit codes of every program, in one table.

==== =======================================================================================================
code meaning
==== =======================================================================================================
0    done
1    a bug: the traceback says where
2    bad input or environment, such as flags, files, rights or a full disk; one line says what is wrong
3    `deepem check` found something
85   worth queuing again: stopped by a signal, or (after progress) by a failure outside the training steps
==== =======================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from deepem.utils.errors import InputError

DONE = 0
BUG = 1
BAD_INPUT = 2
FOUND = 3
STOPPED = 85


@contextmanager
def no_exit(where: str) -> Iterator[None]:
    """Wrap code of a plug-in, which must not end the program.

    Raises:
        InputError: the plug-in called sys.exit.
    """
    try:
        yield
    except SystemExit as error:
        if error.code == STOPPED:  # the exit of a run that was asked to stop
            raise
        raise InputError(where, f"sys.exit({error.code})", "a result, or an exception that says why not") from error
