"""Environments: each simulated task in a folder, with its expert; how any other one is made to fit."""
