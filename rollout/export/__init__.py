"""Encoder and policy as one graph for programs without PyTorch."""
