"""Distribute a program's work as tasks over a queue that workers on any machines share, phase by phase.

A program defines the boxes and the work of its tasks. This package splits work into tasks, queues them, marks them as
done and retries failures. It knows programs only through the table in `programs`, and never sees the command line or
its options.
"""
