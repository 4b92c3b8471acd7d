"""Pretraining of what is frozen afterwards: world models whose encoder `vla embed` takes."""
