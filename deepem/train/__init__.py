"""Training: the command line, the loop, and what keeps a run alive. What inference needs too does not belong here."""
