"""The suite directory: where everything of a suite lies."""

from pathlib import Path

from vla.base.errors import VlaError

MANIFEST = "manifest.json"


class SuiteFolder:
    """Paths of one suite.

    Args:
        path: the suite directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def manifest(self) -> Path:
        return self.path / MANIFEST

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def notes(self) -> Path:
        return self.path / "notes.md"

    def run(self, name: str) -> Path:
        """Return a run's directory."""
        return self.path / "runs" / name

    def final_rollout(self, name: str) -> Path:
        """Return where a run's policy is evaluated after training."""
        return self.run(name) / "eval" / "final"

    def log(self, name: str) -> Path:
        """Return the file that a run's commands print into."""
        return self.path / "logs" / f"{name}.log"

    def lock(self, name: str) -> Path:
        """Return the file that a run's process holds locked as long as it lives."""
        return self.path / "logs" / f"{name}.lock"

    def job_status(self, name: str) -> Path:
        """Return where a run's job on a cluster writes how it stands."""
        return self.path / "logs" / f"{name}.json"

    @property
    def job_output(self) -> Path:
        """The folder of what jobs on a cluster print, and of what starts them."""
        return self.path / "logs" / "slurm"

    @classmethod
    def open(cls, path: Path) -> "SuiteFolder":
        """Open an existing suite.

        Raises:
            VlaError: there is none.
        """
        folder = cls(path)
        if not folder.manifest.is_file():
            raise VlaError(f"no suite at {path} (it has no {MANIFEST}); start one: vla sweep suite.toml")
        return folder
