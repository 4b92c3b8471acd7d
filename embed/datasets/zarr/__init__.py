"""Replay buffers in zarr, as diffusion_policy and UMI write them.

They are read here, and not through the package zarr, for three reasons: it answers with zeros where a file is
missing, follows links out of the dataset, and unpacks whatever a chunk claims to hold.
"""
