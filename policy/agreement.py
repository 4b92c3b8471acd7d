"""Do caches agree, so that one policy can be trained on all of them? Messages name both, and what to do."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from vla.base.errors import CacheError, ConfigError, nearest
from vla.cache import ACTION, STATE, FeatureCache, Stream


@runtime_checkable
class Named(Protocol):
    """A cache with a name, and what it calls streams of others; see `vla.policy.mixture.Member`."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def cache(self) -> FeatureCache:
        """Its streams."""

    @property
    def calls(self) -> Mapping[str, str]:
        """Its own names of streams, by those that the mixture has for them."""


def require_agreement(members: Sequence[Named], observed: Sequence[str]) -> tuple[Stream, ...]:
    """Check that all caches hold the streams that a policy observes, and the action.

    Args:
        members: the first one says how streams are called, and in which order.
        observed: names of the streams; empty is all.

    Returns:
        The streams, by the names that the mixture has for them.

    Raises:
        CacheError: two caches differ; the message names both.
        ConfigError: a name is mapped that a cache does not have.
    """
    first, *others = members
    agreed = _streams_of(first)
    if observed:
        agreed = {name: stream for name, stream in agreed.items() if name in (*observed, ACTION)}
    for other in others:
        _require_same_rate(first, other)
        theirs = _streams_of(other)
        for name, stream in agreed.items():
            _require_same(first, stream, other, theirs.get(name), theirs)
        if not observed and (more := [name for name in theirs if name not in agreed]):
            raise CacheError(
                f"cache {other.name} has a stream '{more[0]}' that {first.name} has not, which has: "
                f"{', '.join(agreed)}; {_advice(other, agreed, more[0])}"
            )
    return tuple(agreed.values())


def _streams_of(member: Named) -> dict[str, Stream]:
    """Return a cache's streams by the names that the mixture has for them."""
    streams = dict(member.cache.streams)
    for name, own in member.calls.items():
        if own not in member.cache.streams or own in (STATE, ACTION):
            raise ConfigError(
                f"train.rename maps '{name}' to '{own}' of cache {member.name}, which has no such stream to "
                f"map; {nearest(own, [n for n in member.cache.streams if n not in (STATE, ACTION)])}"
            )
    renamed = {own: name for name, own in member.calls.items()}
    found = {renamed.get(own, own): stream for own, stream in streams.items()}
    if len(found) != len(streams):
        raise ConfigError(f"train.rename gives two streams of cache {member.name} the same name")
    return {name: stream.model_copy(update={"name": name}) for name, stream in found.items()}


def _require_same_rate(first: Named, other: Named) -> None:
    rates = [one.cache.metadata.dataset.fps for one in (first, other)]
    if rates[0] != rates[1]:
        raise CacheError(
            f"caches {first.name} and {other.name} do not agree: {rates[0]:g} and {rates[1]:g} frames a "
            "second; a policy has one control rate, so resample one dataset"
        )


def _require_same(
    first: Named, stream: Stream, other: Named, theirs: Stream | None, known: Mapping[str, Stream]
) -> None:
    if theirs is None:
        raise CacheError(
            f"cache {first.name} has a stream '{stream.name}' that {other.name} has not, which has: "
            f"{', '.join(known)}; {_advice(other, [stream.name], 'ITS_NAME')}"
        )
    shapes = [(one.kind, one.dtype, one.shape) for one in (stream, theirs)]
    if shapes[0] != shapes[1]:
        raise CacheError(
            f"caches {first.name} and {other.name} do not agree: {stream.describe()} and "
            f"{theirs.describe()}; a policy takes one shape of each stream"
        )
    if stream.made_by != theirs.made_by:
        encoders = [
            one.cache.metadata.encoders[made].describe() if made else "the dataset"
            for one, made in ((first, stream.made_by), (other, theirs.made_by))
        ]
        raise CacheError(
            f"caches {first.name} and {other.name} do not agree: '{stream.name}' is of {encoders[0]} and of "
            f"{encoders[1]}; embed one of the datasets again with the encoder of the other"
        )


def _advice(other: Named, names: Sequence[str] | Mapping[str, Stream], own: str) -> str:
    free = [name for name in names if name not in (STATE, ACTION)]
    wanted = next((name for name in free if name not in other.cache.streams), free[0] if free else own)
    example = f'{{"{other.name}" = {{"{wanted}" = "{own}"}}}}'
    return f"map it: --set 'train.rename={example}', or choose what is observed: policy.streams"
