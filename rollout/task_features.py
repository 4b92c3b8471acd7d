"""What the live policy is told to do: a task text's feature.

A text that the policy was trained on is in its weights. Any other goes through the text encoder that it was
trained with, which is loaded when it is first needed. A policy with a language model reads any text.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from vla.base.errors import ConfigError, EncoderError
from vla.cache.metadata import EncoderIdentity
from vla.embed.text_encoders.text_encoder import TextEncoder
from vla.embed.text_encoders.text_encoder_family import load_again
from vla.policy.agents.policy import Policy
from vla.policy.trunks.text import choose_task, name_tasks


class TaskFeatures:
    """The features of task texts for one policy.

    Args:
        policy: with or without language.
        encoder: what the policy sees with; its checkpoint may have a text tower too.
        task: the text to follow where none is named; empty is the only one that the policy knows.

    Raises:
        ConfigError, EncoderError: `task` is refused; see `feature`.
    """

    def __init__(self, policy: Policy, encoder: EncoderIdentity | None, task: str = "") -> None:
        self._policy, self._encoder, self._task = policy, encoder, task
        self._tower: TextEncoder | None = None
        self._rows = {text: row for row, text in enumerate(policy.tasks)}
        if task:
            self.feature()

    @property
    def known(self) -> tuple[str, ...]:
        """The texts that the policy was trained on; none for one that takes none."""
        return self._policy.tasks

    @property
    def is_open(self) -> bool:
        """Whether somebody has to say which task it is: several are known, and none was chosen."""
        return len(self.known) > 1 and not self._task

    def text(self, task: str = "") -> str:
        """Return the text that is followed; empty for a policy that takes none.

        Args:
            task: the text that is named; empty if none is.

        Raises:
            ConfigError: the policy takes no text and is given one, or knows several and is given none.
        """
        asked = task or self._task
        if asked in self._rows:
            return asked
        if self.known:
            return choose_task(self.known, asked)
        if asked:
            raise ConfigError(f"the policy takes no task text (policy.language is off), found '{asked:.80}'")
        return ""

    def feature(self, task: str = "") -> Shaped[Tensor, "text_dim"] | None:
        """Return the feature of the text that is followed; see `features`."""
        found = self.features([task])
        return None if found is None else found[0]

    def features(self, tasks: Sequence[str]) -> Shaped[Tensor, "n text_dim"] | None:
        """Return the features of the texts that are followed; None for a policy that takes none.

        Of a policy that reads words itself they are token ids, as many as the longest text has.

        Args:
            tasks: one a robot; an empty one takes the policy's own.

        Raises:
            ConfigError: see `text`.
            EncoderError: the policy was not trained on a text, and its text encoder cannot be had.
        """
        texts, features = [self.text(task) for task in tasks], self._policy.task_features
        if self.known and (ids := self._policy.read_tasks(texts)) is not None:
            return ids
        return None if features is None else torch.stack([self._row(text, features) for text in texts])

    def _row(self, text: str, features: Tensor) -> Tensor:
        row = self._rows.get(text)
        if row is not None:
            return features[row]
        if self._tower is None:
            self._tower = self._load_tower(text)
        return torch.from_numpy(self._tower.encode([text])[0]).to(self._policy.device)

    def _load_tower(self, text: str) -> TextEncoder:
        known = f"the policy was not trained on the task '{text:.80}' but on: {name_tasks(self.known)}"
        trained_with = self._policy.config.text_encoder
        assert trained_with is not None  # the policy has features of texts
        try:
            tower = load_again(trained_with, self._encoder)
        except (ConfigError, EncoderError) as error:
            raise EncoderError(f"{known}; to encode others: {error}") from error
        if tower.identity != trained_with:
            where = trained_with.id or (self._encoder.id if self._encoder else "it")
            raise EncoderError(f"{known}; {where} has another text tower than the policy was trained with")
        return tower
