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

DONE = 0
BUG = 1
BAD_INPUT = 2
FOUND = 3
STOPPED = 85
