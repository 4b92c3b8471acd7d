"""Environments: each simulated task in its folder, with its expert; and how any environment is made to fit."""
