"""Several caches as one: `vla train --cache A --cache B --weights 2,1`.

A mixture looks like a cache where a policy is built and trained: it has `metadata` with streams, encoders and
the statistics of the union, task texts and their features. Its members must agree in what a policy observes:
name, kind, type, shape and encoder of each stream, the action, and the control rate. A member may call a
stream otherwise; `calls` says how.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import gcd, lcm
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float32
from torch import Tensor

from vla.base.errors import CacheError, ConfigError, nearest
from vla.cache import ACTION, CacheMetadata, EncoderIdentity, FeatureCache, Statistics, Stream, TextIdentity
from vla.policy.agreement import require_agreement
from vla.policy.episode_statistics import frames_of, vectors_of
from vla.policy.nn.normalize import Standardize
from vla.policy.union import scaled, union_statistics

Normalise = Literal["union", "each"]
MAX_CYCLE = 100_000
"""Windows after which the order of caches repeats."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One cache of a mixture."""

    name: str
    """Of its folder."""
    cache: FeatureCache
    share: int
    """Of each `sum of shares` windows, so many are of this cache."""
    calls: Mapping[str, str]
    """What it calls a stream of the mixture, where it calls it otherwise."""
    vectors: Mapping[str, Statistics] = field(default_factory=dict)
    """Statistics of vectors, by its own names, that stand for those in `cache`: of `episodes`."""
    episodes: tuple[int, ...] | None = None
    """Positions of those that are trained on; None is all."""

    def own(self, stream: str) -> str:
        """Return what the cache calls a stream of the mixture."""
        return self.calls.get(stream, stream)

    def values(self, stream: str) -> Tensor:
        """Return a vector of all frames that `vectors` is of, [frames, dim]."""
        every = self.cache.all(self.own(stream))
        return every if self.episodes is None else every[frames_of(self.cache, self.episodes)]

    def statistics(self, stream: str) -> Statistics:
        """Return the statistics of a stream of the mixture."""
        own = self.own(stream)
        return self.vectors.get(own) or self.cache.metadata.statistics[own]

    @property
    def action(self) -> Standardize:
        """Between this cache's actions and about unit scale."""
        statistics = self.statistics(ACTION)
        standardize = Standardize(len(statistics.mean))
        standardize.fit(statistics.mean, statistics.std)
        return standardize


@dataclass(frozen=True, kw_only=True)
class MixtureMetadata:
    """What a mixture says of itself, in the words of `CacheMetadata`."""

    members: tuple[Member, ...]
    streams: tuple[Stream, ...]
    """As the first member has them."""
    encoders: Mapping[str, EncoderIdentity]
    statistics: Mapping[str, Statistics]
    """Of the union: as of one cache with all the frames."""
    tasks: tuple[str, ...]
    """Of all members, in order of appearance."""
    normalise: Normalise
    fingerprint: str

    @property
    def observed(self) -> tuple[Stream, ...]:
        """All that a policy may know of an instant: every stream but the action."""
        return tuple(stream for stream in self.streams if stream.name != ACTION)

    @property
    def action(self) -> Stream:
        return next(stream for stream in self.streams if stream.name == ACTION)

    @property
    def fps(self) -> float:
        return self.members[0].cache.metadata.dataset.fps

    @property
    def text_encoder(self) -> TextIdentity | None:
        """The text tower of the task texts' features; None where a member has none."""
        texts = [member.cache.metadata.texts for member in self.members]
        return texts[0].encoder if texts[0] and all(texts) else None


class Mixture:
    """Several caches that one policy is trained on.

    Args:
        caches: two or more, all different.
        weights: how often windows of each are drawn, in any unit; empty draws from all alike.
        rename: what a cache calls streams of the first one, by its name or folder.
        streams: those that a policy observes; the others need not be everywhere. Empty is all.
        normalise: whether actions are standardised by the statistics of all caches or by each cache's own.

    Attributes:
        members: the caches, in order.
        metadata: what they amount to.

    Raises:
        CacheError: they do not agree; the message names both.
        ConfigError: a weight or a name is not valid.
    """

    def __init__(
        self,
        caches: Sequence[FeatureCache],
        weights: Sequence[float | int] = (),
        rename: Mapping[str, Mapping[str, str]] | None = None,
        streams: Sequence[str] = (),
        normalise: Normalise = "union",
    ) -> None:
        names = _names(caches)
        calls = _calls(names, caches, rename or {})
        members = tuple(
            Member(name=name, cache=cache, share=share, calls=calls.get(name, {}))
            for name, cache, share in zip(names, caches, _shares(names, weights), strict=True)
        )
        self._describe(members, require_agreement(members, streams), normalise)

    def of_episodes(self, episodes: Sequence[Sequence[int]]) -> "Mixture":
        """Return the same mixture, whose statistics of vectors are those of some episodes of each cache.

        Args:
            episodes: of each cache, positions of those that are trained on.
        """
        members = tuple(
            replace(one, vectors=vectors_of(one.cache, chosen), episodes=tuple(chosen))
            for one, chosen in zip(self.members, episodes, strict=True)
        )
        found = copy(self)
        found._describe(members, self.metadata.streams, self.metadata.normalise)
        return found

    def _describe(
        self, members: tuple[Member, ...], agreed: tuple[Stream, ...], normalise: Normalise
    ) -> None:
        """Take members that agree in some streams."""
        self.members, caches = members, [member.cache for member in members]
        made_by = {stream.made_by for stream in agreed}
        encoders = caches[0].metadata.encoders
        self.metadata = MixtureMetadata(
            members=self.members,
            streams=agreed,
            encoders={digest: encoder for digest, encoder in encoders.items() if digest in made_by},
            statistics={stream.name: self._statistics(stream, normalise) for stream in agreed},
            tasks=tuple(dict.fromkeys(task for cache in caches for task in cache.metadata.tasks)),
            normalise=normalise,
            fingerprint=_fingerprint(self.members, normalise),
        )

    @property
    def folder(self) -> Path:
        """Of the first cache."""
        return self.members[0].cache.folder

    def nbytes_of(self, streams: Collection[str]) -> int:
        """Return the bytes of some streams in all caches, given by name."""
        return sum(member.cache.nbytes_of([member.own(name) for name in streams]) for member in self.members)

    def text_features(self) -> Float32[Tensor, "tasks dim"]:
        """Return the features of the task texts, in the order of `metadata.tasks`.

        Raises:
            CacheError: a cache has none, or they are of another text tower.
        """
        rows: dict[str, Tensor] = {}
        for member in self.members:
            features, texts = member.cache.text_features(), member.cache.metadata.texts
            rows = {**dict(zip(member.cache.metadata.tasks, features, strict=True)), **rows}
            if texts and self.metadata.text_encoder not in (None, texts.encoder):
                raise CacheError(
                    f"caches {self.members[0].name} and {member.name} have features of two different text "
                    "towers; make those of one again with the encoder of the other: vla embed --language"
                )
        return torch.stack([rows[task] for task in self.metadata.tasks])

    def require_checksums(self) -> None:
        """Read every shard of all caches once and compare it with its checksum; see `FeatureCache`."""
        for member in self.members:
            member.cache.require_checksums()

    def _statistics(self, stream: Stream, normalise: Normalise) -> Statistics:
        """Return those of the union; of vectors that datasets hold, with quantiles."""
        found = [member.statistics(stream.name) for member in self.members]
        values = None
        if stream.kind == "vector" and stream.made_by is None:
            values = [member.values(stream.name) for member in self.members]
        if normalise == "each" and stream.name == ACTION and values is not None:
            scales = [member.action for member in self.members]
            found = [scaled(one, scale) for one, scale in zip(found, scales, strict=True)]
            values = [scale(one) for one, scale in zip(values, scales, strict=True)]
        return union_statistics(found, values)


AnyCache = FeatureCache | Mixture
AnyMetadata = CacheMetadata | MixtureMetadata
"""What a policy is built for."""


def caches_of(cache: AnyCache) -> tuple[FeatureCache, ...]:
    """Return the caches of a mixture, or the one."""
    return tuple(member.cache for member in cache.members) if isinstance(cache, Mixture) else (cache,)


def _names(caches: Sequence[FeatureCache]) -> list[str]:
    """Name caches by their folders; those of the same name by their fingerprints too."""
    prints = [cache.metadata.fingerprint for cache in caches]
    for k, one in enumerate(prints):
        if one in prints[:k]:
            first = caches[prints.index(one)].folder
            raise ConfigError(
                f"{first} and {caches[k].folder} hold the same cache ({one}); name it once, and give it the "
                "greater weight"
            )
    folders = [cache.folder.resolve().name for cache in caches]
    return [
        name if folders.count(name) == 1 else f"{name}-{one}"
        for name, one in zip(folders, prints, strict=True)
    ]


def _shares(names: Sequence[str], weights: Sequence[float | int]) -> list[int]:
    """Return the smallest whole numbers that are to each other as the weights."""
    if weights and len(weights) != len(names):
        raise ConfigError(
            f"train.weights has {len(weights)} values for {len(names)} caches ({', '.join(names)}); give one "
            "a cache, or none: all alike"
        )
    exact = [Fraction(f"{weight:g}") for weight in weights or [1.0] * len(names)]
    whole = [int(one * lcm(*(one.denominator for one in exact))) for one in exact]
    if min(whole) < 1 or sum(whole) // gcd(*whole) > MAX_CYCLE:
        raise ConfigError(
            f"train.weights = {list(weights)} have no small common measure; take small numbers, such as 2,1"
        )
    return [one // gcd(*whole) for one in whole]


def _calls(
    names: Sequence[str], caches: Sequence[FeatureCache], rename: Mapping[str, Mapping[str, str]]
) -> dict[str, Mapping[str, str]]:
    """Find the caches that names are mapped for: by name, by folder, or by the folder that holds it."""
    found: dict[str, Mapping[str, str]] = {}
    for key, calls in rename.items():
        place = Path(key).resolve()
        folders = [cache.folder.resolve() for cache in caches]
        which = [k for k, name in enumerate(names) if key == name or place == folders[k]]
        which = which or [k for k, folder in enumerate(folders) if place == folder.parent]
        if len(which) != 1:
            raise ConfigError(
                f"train.rename names '{key}', which is none of the caches; {nearest(key, names)}"
            )
        found[names[which[0]]] = calls
    return found


def _fingerprint(members: Sequence[Member], normalise: Normalise) -> str:
    """Identify a mixture by all that decides what is drawn from it."""
    parts = [[one.cache.metadata.fingerprint, one.share, dict(one.calls)] for one in members]
    text = json.dumps([parts, normalise], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
