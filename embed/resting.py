"""Say which dimensions of state and action rested in the demonstrations, when a cache has been made."""

from pathlib import Path

from vla.base.progress import say
from vla.cache import ACTION, STATE, FeatureCache
from vla.cache.movement import describe_resting


def say_what_rests(folder: Path) -> None:
    """Write one line if there are any: a policy will hold them, and be told nothing of them.

    Args:
        folder: of a finished cache.
    """
    lines = list(describe_resting(FeatureCache(folder).metadata.statistics, (STATE, ACTION)))
    if lines:
        say(f"warning: {'; '.join(lines)}; a policy commands what never moved to stay where it was")
