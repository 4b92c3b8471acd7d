"""Stage two: a policy trained on cached features alone.

Importing this package is cheap; `vla.policy.training.train` and `vla.policy.agent` bring in torch.
"""
