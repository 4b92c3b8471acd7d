"""Action heads: a condition in, an action chunk out; a file each, with its config.

    imf    improved MeanFlow: average velocities, one step
    flow   flow matching, N Euler steps
    ddpm   noise prediction, N DDIM steps
    mlp    deterministic regression

The first three share one network, `ActionTransformer`, on Attention Residuals or plain ones. A new head is a
file here, or a plugin, with a config that extends `HeadConfig`; nothing lists them.
"""
