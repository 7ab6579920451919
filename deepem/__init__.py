"""Iteration-based multi-task training and stitched inference for volume electron microscopy.

`deepem.__main__` is the command line. Nothing heavy is imported here.
"""

__version__ = "0.1.0"
