"""Loss and action error on held-out episodes."""

import torch
from jaxtyping import Int64
from torch import Tensor

from vla.policy.agent import VLAAgent
from vla.policy.training.sampling import RowRandom, generator_for
from vla.policy.windows import FeatureWindows

MAX_WINDOWS = 512


@torch.no_grad()
def validate(
    agent: VLAAgent, windows: FeatureWindows, current: Int64[Tensor, "windows"], seed: int
) -> dict[str, float]:
    """Compare an agent with held-out demonstrations; the same windows and noise every time.

    Args:
        agent: usually the one with averaged weights.
        windows: of the cache.
        current: current frames of the held-out windows; at most 512 of them, evenly spread, are used.
        seed: of noise and times.

    Returns:
        `loss`, and `action_rmse`: of samples against the demonstration, in standard
        deviations of each action dimension.
    """
    stride = -(-len(current) // MAX_WINDOWS)
    batch = windows.batch(current[::stride])
    random = RowRandom(generator_for(seed, "validation", 0, current.device))
    loss, _ = agent.compute_loss(batch, agent.draw(batch, random))

    def noise() -> Tensor:
        return random.normal(*batch.action.shape)

    chunk = agent.predict_action_chunk(batch.features, batch.state, noise=noise, language=batch.language)
    error = agent.action_standardize(chunk) - agent.action_standardize(batch.action)
    return {
        "loss": float(loss),
        "action_rmse": float(error[~batch.action_is_pad].square().mean().sqrt()),
    }
