"""Inference: stitched prediction of volumes in memory, in files and by tasks. This project's tests are in tests/."""
