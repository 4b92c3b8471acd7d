"""Trunks: one stream in, tokens out; trained with the policy."""
