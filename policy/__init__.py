"""Stage two: policies, trained on a cache alone.

    agents    policies: what training and rollouts talk to
    trunks    a stream to tokens
    fusion    tokens and state to a condition
    heads     a condition to a chunk of actions
    training  the loop, checkpoints, the run directory
    sharing   policy folders, model cards, the Hub

Importing this package is cheap; its modules bring in torch.
"""
