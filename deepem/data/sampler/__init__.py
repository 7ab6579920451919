"""Plug-ins: each file draws samples (`Sampler`, `get_spec`). `basic` serves every combination of tasks."""
