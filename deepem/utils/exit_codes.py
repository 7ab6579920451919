"""The exit codes of every program, in one table.

==== =======================================================================================================
code meaning
==== =======================================================================================================
0    done
1    a bug: the traceback says where
2    bad input or environment: flags, files, rights, a disk that is full or gone; one line says what and why
3    `deepem check` found something
85   stopped and worth queuing again: by a signal, or by a failure beside the training steps after progress
==== =======================================================================================================
"""

DONE = 0
BUG = 1
BAD_INPUT = 2
FOUND = 3
STOPPED = 85
