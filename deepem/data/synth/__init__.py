"""Procedural electron microscopy: tissue with every label, made from a name."""
