"""Trainable trunks that begin as frozen encoders: they join the rooms `embed` and `policy`."""
