"""Builds the objects a program works with from its options: device, network, volumes, samplers.

Training, inference and the tools all build them here, in the same way. This package may not import any of the three.
"""
