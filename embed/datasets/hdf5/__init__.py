"""Demonstrations in HDF5: a file an episode as ACT writes them, or a group an episode as robomimic does."""
