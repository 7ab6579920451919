"""The command line: typed groups of flags, the parser made from them, plug-in modules, files of arguments.

Nothing below `deepem.build` may import this package. Functions there take plain values.
"""
