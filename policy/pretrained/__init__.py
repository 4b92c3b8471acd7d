"""Policies that begin with somebody else's weights.

    smolvla    SmolVLA in LeRobot's format: config, weights, tokeniser          smolvla.py
    openvla    OpenVLA in the Hub's format: projector, Llama 2, action tokens    openvla.py

Each is its policy, its network, and what it reads of published files, which `vla/base/hub_folder.py` finds.
"""
