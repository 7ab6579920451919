"""Small helpers that every package may use: geometry, edges, errors, checkpoint files.

Volume formats and command-line code do not belong here.
"""
