"""Policies: observations in, actions out. `policy.py` is all that training and rollouts know of them.

    agent    trunks, fusion and an action head    vla_agent.py

A new policy is a file here, or a plugin, with a config that extends `PolicyConfig`; nothing lists them.
"""
