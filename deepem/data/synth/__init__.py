"""Procedural electron microscopy: generates tissue with all labels from a name."""
