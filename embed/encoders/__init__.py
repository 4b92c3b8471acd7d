"""Frozen encoders: one file a member, each a configuration beside its class; see `encoder.py`."""
