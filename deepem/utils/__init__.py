"""Small helpers that every room may use: geometry, edges, errors, checkpoint files.

No file formats of volumes, no command line.
"""
