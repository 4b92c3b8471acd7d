"""How long a training will take, said while it is early enough to choose another size.

On a CPU alone: the full-size policy takes a minute a step there, and nobody would know for an hour.
"""

import time

import torch

from vla.base.progress import say

LONG_S = 3600.0
ENOUGH_S, ENOUGH_STEPS = 5.0, 10
"""A rate is known after so long, or so many steps."""
HEAVY = 1_000_000_000
"""Weights times windows of a batch from which a step takes a CPU many seconds."""
ADVICE = "without a GPU, begin anew with a smaller policy: vla train --preset small --out NEW"


class Outlook:
    """Says once how long a training takes.

    Args:
        device: where it runs.
        weights: numbers that are trained.
        batch_size: windows of a step.
        steps: still to be made.
        quiet: say nothing; for all but one of several processes.
        advice: what would be shorter.
    """

    def __init__(
        self,
        device: torch.device,
        weights: int,
        batch_size: int,
        steps: int,
        *,
        quiet: bool = False,
        advice: str = ADVICE,
    ) -> None:
        self._advice = advice
        self._steps, self._done, self._began = steps, 0, time.monotonic()
        self._told = quiet or device.type != "cpu" or steps == 0
        if not self._told and weights * batch_size >= HEAVY:
            say(
                f"{weights / 1e6:.0f} million weights and batches of {batch_size} on a CPU take gigabytes of "
                f"memory; how much time is said after the first step; {advice}"
            )

    def step(self) -> None:
        """Note that a step was made."""
        if self._told:
            return
        self._done += 1
        passed = time.monotonic() - self._began
        if passed >= ENOUGH_S or self._done >= ENOUGH_STEPS:
            self._told = True
            say(forecast(passed / self._done, self._steps, self._advice))


def forecast(step_s: float, steps: int, advice: str = ADVICE) -> str:
    """Say what a step takes and what all of them do; if that is long, what would be shorter.

    >>> forecast(0.25, 1200)
    'a step takes 0.25 s, all 1,200 about 5 minutes'
    """
    total_s = step_s * steps
    line = f"a step takes {step_s:.2g} s, all {steps:,} about {spell(total_s)}"
    return f"{line}; {advice}" if total_s > LONG_S else line


def spell(seconds: float) -> str:
    """Spell a duration in its largest unit.

    >>> [spell(40.0), spell(5400.0), spell(2e5)]
    ['40 seconds', '90 minutes', '2.31 days']
    """
    for unit, size, most in (("seconds", 1, 120), ("minutes", 60, 120), ("hours", 3600, 48)):
        if seconds < most * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.3g} days"
