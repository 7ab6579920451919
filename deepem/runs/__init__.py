"""A run on disk: its folder, checkpoints, metrics and events. Training writes them; other programs only read them."""
