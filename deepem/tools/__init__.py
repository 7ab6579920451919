"""The verbs of `deepem VERB` besides train and forward: one command line each, with a `main(words) -> int`.

What can be used without a command line lives in the rooms below. Tools import neither each other's command lines nor
`deepem.train` and `deepem.test`.
"""
