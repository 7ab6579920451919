"""Inference: stitched prediction of volumes in memory, from files and by tasks. The project has its tests in tests/."""
