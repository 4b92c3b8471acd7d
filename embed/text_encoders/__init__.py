"""Frozen encoders of task texts: the text tower of a SigLIP checkpoint, or a sentence encoder beside it.

A new one is a file here, or a plugin, with a config that extends `TextEncoderConfig`; nothing lists them.
"""
