"""Fusion: the tokens of all trunks, the state and the task text to one condition an instant.

    concat            side by side, and one linear map
    tokens            every token stays one, for heads that attend
    language_model    a pretrained language model reads them and the instruction

A new fusion is a file here, or a plugin, with a config that extends `FusionConfig`; nothing lists them.
"""
