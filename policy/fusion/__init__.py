"""Fusion: the tokens of all trunks, the state and the task text to one condition an instant.

    concat    side by side, and one linear map

A new fusion is a file here, or a plugin, with a config that extends `FusionConfig`; nothing lists them.
"""
