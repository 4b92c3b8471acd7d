"""The training loop and what it leaves: checkpoints, run directory, logs, trackers."""
