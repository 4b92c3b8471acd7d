"""A success rate and how sure it is: the one place that computes and words it."""

import math
from collections.abc import Sequence

Z_95 = 1.959964


def wilson_interval(successes: int, episodes: int) -> tuple[float, float]:
    """Return the 95 % interval of a success rate (Wilson 1927), in [0, 1].

    Unlike the normal approximation it stays inside [0, 1] and is not empty at 0 or n successes.

    Args:
        successes: between 0 and `episodes`.
        episodes: at least 1.
    """
    rate, z2 = successes / episodes, Z_95**2 / episodes
    centre = (rate + z2 / 2) / (1 + z2)
    half = Z_95 / (1 + z2) * math.sqrt(rate * (1 - rate) / episodes + z2 / (4 * episodes))
    # At 0 or n successes the bound is exact; rounding would leave it 1e-17 off.
    return (0.0 if successes == 0 else centre - half, 1.0 if successes == episodes else centre + half)


def format_success(
    rate: float | None, interval: Sequence[float] | None, *, digits: int = 1, missing: str = "not measured"
) -> str:
    """Word a success rate with its 95 % interval.

    Args:
        rate: [%], as `pc_success` of `eval_info.json`; None where nothing was said of success.
        interval: its lower and upper bound [%], as `pc_success_ci95`.
        digits: after the point.
        missing: what to say where there is no rate.

    >>> format_success(75.0, (30.1, 95.4))
    '75.0 % (30.1 to 95.4)'
    """
    if rate is None or interval is None:
        return missing
    low, high = interval
    return f"{rate:.{digits}f} % ({low:.{digits}f} to {high:.{digits}f})"
