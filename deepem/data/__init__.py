"""Volumes in memory, the samples drawn from them, and the loader that batches them.

File formats are in `deepem.io`; nothing here knows the command line.
"""
