"""Layers and residual stacks that trunks and heads share."""
