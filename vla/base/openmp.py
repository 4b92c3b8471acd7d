"""Share the cores with other processes: threads that wait for one another soon go to sleep."""

import os

SPIN_COUNT = 3_000
"""Looks at a barrier before a thread sleeps, about 0.1 ms; libgomp's own number is 300,000."""


def spin_briefly() -> None:
    """Let a thread that has finished its share of an operation wait awake for a short while only.

    While it waits awake it keeps a core from whoever has work left: beside another process on the same cores,
    a training step then takes many times as long as alone (docs/decisions/0018). Going to sleep at once would
    be as polite, but every operation would wait for threads to wake.

    libgomp reads the setting when it is loaded, so this comes before `import torch`; processes that are
    started later inherit it. It is for commands, not for libraries. A GOMP_SPINCOUNT or an OMP_WAIT_POLICY
    that the user has set is respected; where torch comes with another OpenMP, as on macOS, it does nothing.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
