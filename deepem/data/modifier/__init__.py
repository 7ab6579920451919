"""Plug-ins: each file changes whole batches on the device (`Modifier`)."""
