"""Frozen encoders: one file a member, each a config beside its class."""
