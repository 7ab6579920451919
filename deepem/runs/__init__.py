"""A run on disk: its folder, checkpoints, metrics and events. Training writes it, all others read it."""
