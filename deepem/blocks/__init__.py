"""Tasks over a queue that any number of workers on any machines share, for any program, one phase after the other.

A program says which boxes its tasks have and what a task does; this room cuts, queues, marks and repeats. It knows
programs only by the table in `programs`, never the command line or an options object.
"""
