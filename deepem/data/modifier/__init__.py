"""Plug-ins that change whole batches on the device; each file defines a `Modifier`."""
