"""From options to the things that a program works with: device, network, volumes, samplers.

Training, inference and the tools all build them here, in one way. This package may not import those three.
"""
