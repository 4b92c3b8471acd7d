"""Frozen encoders that are made of trained policies: they join the rooms `embed` and `policy`."""
