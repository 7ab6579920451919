"""Training: the command line, the loop, and what keeps a run alive. Code that inference also needs lives elsewhere."""
