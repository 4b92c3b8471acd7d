"""What the live policy is told to do: a task text's feature.

A text that the policy was trained on is in its weights. Any other goes through the text tower of the
policy's encoder, which is loaded when it is first needed.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from vla.base.errors import ConfigError, EncoderError
from vla.cache.metadata import EncoderIdentity
from vla.embed.encoders.encoder_config import EncoderConfig
from vla.embed.encoders.text import FrozenTextEncoder
from vla.policy.agent import VLAAgent
from vla.policy.trunks.text import choose_task, name_tasks


class TaskFeatures:
    """The features of task texts for one agent.

    Args:
        agent: with or without language.
        encoder: the vision tower that the agent sees through; its checkpoint may have a text tower too.
        task: the text to follow where none is named; empty is the only one that the agent knows.

    Raises:
        ConfigError, EncoderError: `task` is refused; see `feature`.
    """

    def __init__(self, agent: VLAAgent, encoder: EncoderIdentity, task: str = "") -> None:
        self._agent, self._encoder, self._task = agent, encoder, task
        self._tower: FrozenTextEncoder | None = None
        self._rows = {text: row for row, text in enumerate(agent.config.tasks)}
        if task:
            self.feature()

    def text(self, task: str = "") -> str:
        """Return the text that is followed; empty for an agent that takes none.

        Args:
            task: the text that is named; empty if none is.

        Raises:
            ConfigError: the agent takes no text and is given one, or knows several and is given none.
        """
        asked = task or self._task
        if asked in self._rows:
            return asked
        if self._agent.language is not None:
            return choose_task(self._agent.config.tasks, asked)
        if asked:
            raise ConfigError(f"the policy takes no task text (policy.language is off), found '{asked:.80}'")
        return ""

    def feature(self, task: str = "") -> Float[Tensor, "text_dim"] | None:
        """Return the feature of the text that is followed; None for an agent that takes none.

        Raises:
            ConfigError: see `text`.
            EncoderError: the agent was not trained on the text, and the policy's text tower cannot be had.
        """
        text, language = self.text(task), self._agent.language
        if language is None:
            return None
        row = self._rows.get(text)
        if row is not None:
            return language.features[row]
        if self._tower is None:
            self._tower = self._load_tower(text)
        return torch.from_numpy(self._tower.encode([text])[0]).to(self._agent.device)

    def _load_tower(self, text: str) -> FrozenTextEncoder:
        trained = self._agent.config
        known = f"the policy was not trained on the task '{text:.80}' but on: {name_tasks(trained.tasks)}"
        try:
            config = EncoderConfig(id=self._encoder.id, revision=self._encoder.revision or "main")
            tower = FrozenTextEncoder.load(config)
        except EncoderError as error:
            raise EncoderError(f"{known}; to encode others: {error}") from error
        if tower.identity != trained.text_encoder:
            raise EncoderError(
                f"{known}; {self._encoder.id} has another text tower than the policy was trained with"
            )
        return tower
