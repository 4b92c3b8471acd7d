"""The task text as a condition: frozen features of a text tower, projected; and which text it is to be.

The features of the training texts are buffers, so they travel in the policy's weights: whoever names one
of these texts needs no text tower.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vla.base.errors import ConfigError
from vla.policy.nn.normalize import Standardize

MAX_NAMED = 8
"""Texts that a message lists."""
SMALLEST_SCALE = 1e-6
"""Of features whose values are about 0.1; what differs less differs by rounding."""


class LanguageProjector(nn.Module):
    """Standardise a text's feature and project it.

    Features of a few similar sentences have nearly everything in common, so they are centred on their mean.
    Their scale is one number for all dimensions: of two texts that happen to agree in a dimension the
    spread there is nearly nothing, and a third text would be thrown far out.

    Args:
        text_dim: length of a text's feature.
        num_tasks: different texts of the training data.
        output_dim: width of the result.

    Attributes:
        features: [num_tasks, text_dim], of the training texts.
    """

    features: Tensor

    def __init__(self, text_dim: int, num_tasks: int, output_dim: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.zeros(num_tasks, text_dim))
        self.standardize = Standardize(text_dim)
        self.project = nn.Linear(text_dim, output_dim)

    def fit(self, features: Float[Tensor, "num_tasks text_dim"]) -> None:
        """Take the features of the training texts."""
        self.features.copy_(features)
        mean = features.mean(dim=0)
        scale = float((features - mean).square().mean().sqrt())
        # Texts that have one feature between them differ by rounding alone, which is no scale.
        self.standardize.fit(mean.tolist(), [scale if scale > SMALLEST_SCALE else 0.0] * len(mean))

    def forward(self, task: Float[Tensor, "*batch text_dim"]) -> Float[Tensor, "*batch output_dim"]:
        return self.project(self.standardize(task.float()))


def choose_task(tasks: Sequence[str], asked: str) -> str:
    """Return the task text to follow, one that was trained on as it was spelled there.

    Args:
        tasks: texts that the policy was trained on.
        asked: the text that was named, empty if none was; it need not be one of them.

    Raises:
        ConfigError: none was named, and there are several.
    """
    # Text towers read in lower case: texts that differ in nothing else have the same feature.
    known = {text.lower(): text for text in tasks}
    if asked:
        return known.get(asked.lower(), asked)
    if len(tasks) == 1:
        return tasks[0]
    raise ConfigError(
        f"the policy knows {len(tasks)} tasks and none is chosen (--task, rollout.task): {name_tasks(tasks)}"
    )


def name_tasks(tasks: Sequence[str]) -> str:
    """List task texts in a message."""
    named = ", ".join(f"'{task:.80}'" for task in tasks[:MAX_NAMED])
    return named + (f" and {len(tasks) - MAX_NAMED} more" if len(tasks) > MAX_NAMED else "")
