"""A figure of training that is NaN or infinite: where that comes from, what is kept, and what to do."""

import shlex

from vla.cache import FeatureCache
from vla.policy.training.run import RunDirectory


def explain_not_finite(what: str, run: RunDirectory, cache: FeatureCache) -> str:
    """Return a message about a figure; reads the whole cache for the cause."""
    last = run.last_step()
    kept = "there is no checkpoint yet" if last is None else f"the last checkpoint, {last:06d}, is kept"
    cause = cache.not_finite()
    if cause is not None:
        verify = f"vla verify {shlex.quote(str(cache.folder))}"
        return f"{what}; {kept}. The cause: {cause}; look closer: {verify}"
    return f"{what}; {kept}. The cache is finite; lower the rate: --set train.lr=1e-4 --resume"
