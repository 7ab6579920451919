"""The verbs of `deepem VERB` other than train and forward: one command line each, with a `main(words) -> int`.

Code that is useful without a command line belongs in the packages below this one. Tools do not import each other's
command lines, `deepem.train` or `deepem.test`.
"""
