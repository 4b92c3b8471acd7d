"""Fuzz one target in this process: `python tests/fuzz/one.py TARGET ENGINE SECONDS FOLDER`.

Engines: `hypothesis` changes files by their structure, `atheris` follows the coverage of vla's own code.
Prints one JSON object: cases tried, cases that were taken, and the finding if there is one. Bytes that
make a finding are left in FOLDER. A case that does not end, or kills the process, leaves its bytes there as
well, but no JSON.
"""

import faulthandler
import json
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2]))

MEMORY = 12 << 30
"""Address space [byte]; libraries map some 6 GB, what a header claims must not come on top."""

CASE_S = 30
"""One case may take so long; most take milliseconds, on a busy machine too."""


def main() -> None:
    name, engine, seconds, folder = sys.argv[1], sys.argv[2], float(sys.argv[3]), Path(sys.argv[4])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if engine == "atheris":
        with_atheris(name, seconds, folder)
    else:
        with_hypothesis(name, seconds, folder)


class Tally:
    """Count cases, and keep the bytes of the first finding."""

    def __init__(self, name: str, engine: str, folder: Path) -> None:
        from targets import make

        self.target, self._name, self._engine, self._folder = make(name), name, engine, folder
        self.cases = self.taken = 0
        self.finding: str | None = None

    def __call__(self, data: bytes) -> None:
        self.cases += 1
        # If the process dies, these are the bytes it died of.
        (self._folder / f"{self._name}-{self._engine}.last").write_bytes(data)
        # A clock of C: it runs out for loops in C as well, says where the process is, and ends it.
        faulthandler.dump_traceback_later(CASE_S, exit=True)
        try:
            self.taken += self.target(data)
        except Exception as error:
            lines = traceback.format_exception_only(error)
            place = traceback.extract_tb(error.__traceback__)[-1]
            self.finding = f"{lines[-1].strip()[:300]} ({Path(place.filename).name}:{place.lineno})"
            (self._folder / f"{self._name}-{self._engine}.finding").write_bytes(data)
            raise
        finally:
            faulthandler.cancel_dump_traceback_later()

    def report(self) -> None:
        row: dict[str, Any] = {"target": self._name, "engine": self._engine, "cases": self.cases}
        print(json.dumps({**row, "taken": self.taken, "finding": self.finding}), flush=True)
        if self.finding is None:
            (self._folder / f"{self._name}-{self._engine}.last").unlink(missing_ok=True)


def with_hypothesis(name: str, seconds: float, folder: Path) -> None:
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st
    from mutations import changed_bytes, changed_json, changed_message
    from targets import is_json

    tally = Tally(name, "hypothesis", folder)
    change = (
        changed_json(seed_bytes) if is_json(seed_bytes := tally.target.seed) else changed_bytes(seed_bytes)
    )
    if tally.target.is_message:
        change = st.one_of(changed_message(seed_bytes), changed_bytes(seed_bytes))
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end and tally.finding is None:
        number += 1

        @seed(number)
        @settings(
            max_examples=50,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(change)
        def attempt(data: bytes) -> None:
            if time.monotonic() < end:
                tally(data)

        try:
            attempt()
        except Exception:
            if tally.finding is None:
                raise
    tally.report()


def with_atheris(name: str, seconds: float, folder: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["vla"]):
        tally = Tally(name, "atheris", folder)
    corpus = folder / f"corpus-{name}"
    corpus.mkdir()
    (corpus / "seed").write_bytes(tally.target.seed)
    end = time.monotonic() + seconds

    def attempt(data: bytes) -> None:
        if time.monotonic() >= end:  # libFuzzer ends the process without a word to Python
            tally.report()
            sys.stdout.flush()
            import os

            os._exit(0)
        try:
            tally(data)
        except Exception:
            tally.report()
            raise

    longest = str(2 * len(tally.target.seed) + 64)
    options = ["-seed=1", f"-max_len={longest}", f"-artifact_prefix={folder}/{name}-", "-verbosity=0"]
    atheris.Setup([sys.argv[0], str(corpus), *options, "-rss_limit_mb=0"], attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
