"""Two processes started by torchrun: the same bytes when embedding, the same losses when training."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import fake_spec, write_cache, write_dataset

from vla.distributed import World
from vla.policy.run import RunDirectory
from vla.policy.run_log import read_metrics

TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vla"]
ONE = ["-m", "vla"]


def run(how: list[str], folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command with one thread a process: sums of floats depend on the number of threads."""
    command = [sys.executable, *how, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_a_cache_has_the_same_bytes_for_any_number_of_processes(encoder_dir: Path, tmp_path: Path) -> None:
    demos = write_dataset(tmp_path / "demos", lengths=(13, 12))
    named = ["--dataset", demos, "--encoder", encoder_dir, "--device", "cpu", "--set", "cache.shard_frames=4"]
    for how, out in ((ONE, "one"), (TWO, "two")):
        finished = run(how, tmp_path, "embed", *named, "--out", out, "--json")
        assert finished.returncode == 0, finished.stderr[-2000:]
        assert finished.stdout.count("fingerprint") == 1  # rank 0 alone prints
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


@pytest.mark.parametrize("head", ["imf", "ddpm"])
def test_training_has_the_same_losses_for_any_number_of_processes(head: str, tmp_path: Path) -> None:
    write_cache(tmp_path / "cache", fake_spec(lengths=(20, 18, 16)))
    small = ["policy.cond_dim=16", "policy.n_emb=16", "policy.n_layer=1", "policy.n_head=2"]
    small += ["train.batch_size=8", "train.val_episodes=1", "train.rollout_every=0", "train.log_every=1"]
    small += [
        "train.device=cpu",
        "train.steps=6",
        "train.save_every=3",
        "train.val_every=3",
        f"policy.head={head}",
    ]
    named = ["--cache", "cache", "--encoder", "fake-encoder", *[f"--set={setting}" for setting in small]]
    for how, out in ((ONE, "one"), (TWO, "two")):
        finished = run(how, tmp_path, "train", *named, "--out", out)
        assert finished.returncode == 0, finished.stderr[-2000:]
    one, two = (read_metrics(RunDirectory(tmp_path / out)) for out in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in two]
    for key in ("loss", "grad_norm"):
        expected = [row[key] for row in one if key in row]
        assert [row[key] for row in two if key in row] == pytest.approx(expected, rel=1e-4)
    assert (tmp_path / "two/checkpoints/last").resolve().name == "000006"


def test_shares_are_neighbours_cover_everything_and_differ_by_one_at_most() -> None:
    work = list(range(11))
    shares = [World(rank=rank, size=4).share(work) for rank in range(4)]
    assert [item for share in shares for item in share] == work
    assert {len(share) for share in shares} <= {2, 3}
