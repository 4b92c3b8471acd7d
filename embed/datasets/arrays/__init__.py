"""Demonstrations as arrays with a row a frame, whatever they lie in: what HDF5 and zarr have in common."""
