"""Two processes started by torchrun: the same bytes when embedding, the same losses when training."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes import fake_spec, write_cache, write_dataset

from vla.base.distributed import World
from vla.base.errors import VlaError
from vla.cache import CacheConfig
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.encoders.siglip import SiglipConfig
from vla.embed.engine import embed
from vla.policy.training.run import RunDirectory
from vla.policy.training.run_log import read_metrics

TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vla"]
ONE = ["-m", "vla"]


def run(how: list[str], folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command with one thread a process: sums of floats depend on the number of threads."""
    command = [sys.executable, *how, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def digests(folder: Path) -> dict[str, str]:
    # What is remembered of files, by their times, is not part of a cache.
    files = sorted(path for path in folder.rglob("*") if path.is_file() and ".identities" not in path.parts)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.slow
def test_a_cache_has_the_same_bytes_for_any_number_of_processes(encoder_dir: Path, tmp_path: Path) -> None:
    demos = write_dataset(tmp_path / "demos", lengths=(13, 12))
    named = ["--dataset", demos, "--encoder", encoder_dir, "--device", "cpu", "--set", "cache.shard_frames=4"]
    for how, out in ((ONE, "one"), (TWO, "two")):
        finished = run(how, tmp_path, "embed", *named, "--out", out, "--json")
        assert finished.returncode == 0, finished.stderr[-2000:]
        assert finished.stdout.count("fingerprint") == 1  # rank 0 alone prints
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_compiled_loss_is_shared_by_processes_as_it_is(tmp_path: Path) -> None:
    # More than 1 MiB of weights: DistributedDataParallel then has several buckets of gradients, at whose
    # borders torch would cut a compiled loss.
    write_cache(tmp_path / "cache", fake_spec(lengths=(20, 18)))
    small = ["policy.cond_dim=16", "policy.n_emb=128", "policy.n_layer=2", "policy.n_head=2"]
    small += ["train.batch_size=4", "train.val_episodes=0", "train.rollout_every=0", "train.log_every=1"]
    small += ["train.device=cpu", "train.steps=2"]
    named = ["--cache", "cache", "--encoder", "fake-encoder", *[f"--set={setting}" for setting in small]]
    script = str(Path(__file__).parents[1] / "compiled_train.py")
    two = [*TWO[: TWO.index("-m", 1)], script]
    for how, out, compiling in ((ONE, "plain", "off"), (two, "compiled", "on")):
        finished = run(how, tmp_path, "train", *named, "--out", out, f"--set=train.compile={compiling}")
        assert finished.returncode == 0, finished.stderr[-2000:]
    plain, compiled = (
        [row["loss"] for row in read_metrics(RunDirectory(tmp_path / out), "train")]
        for out in ("plain", "compiled")
    )
    assert compiled == pytest.approx(plain, rel=1e-4)


def process_of_rank(rank: int, launcher: int) -> int:
    """Find the process that a torchrun has started for a rank."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if parent == launcher and f"RANK={rank}".encode() in variables:
            return int(folder.name)
    raise AssertionError(f"no process has rank {rank}")


@pytest.mark.slow
def test_a_rank_that_is_killed_leaves_finished_shards_and_the_next_start_goes_on(
    encoder_dir: Path, tmp_path: Path
) -> None:
    demos = write_dataset(tmp_path / "demos", lengths=(60, 60))
    command = [sys.executable, *TWO, "embed", "--dataset", demos, "--encoder", encoder_dir, "--device", "cpu"]
    command += ["--set", "cache.shard_frames=3", "--out", tmp_path / "killed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launcher = subprocess.Popen(
        [*map(str, command)], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    while len(list((tmp_path / "killed").glob("*/parts/*/shards/0*"))) < 4:
        assert launcher.poll() is None, "ended before a rank could be killed"
        time.sleep(0.002)
    os.kill(process_of_rank(1, launcher.pid), signal.SIGKILL)
    _, messages = launcher.communicate()
    assert launcher.returncode != 0
    assert "SIGKILL" in messages
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*/parts/*/shards/0*")}
    assert 4 <= len(finished) < 40

    def finish(out: str) -> int:
        return embed(
            DatasetConfig(path=str(demos)),
            SiglipConfig(id=str(encoder_dir), device="cpu"),
            CacheConfig(path=str(tmp_path / out), shard_frames=3),
        ).shards_encoded

    assert finish("killed") == 40 - len(finished)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    finish("whole")
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")


def test_a_process_that_waits_for_a_dead_one_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def barrier() -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:9")

    monkeypatch.setattr("torch.distributed.barrier", barrier)
    with pytest.raises(VlaError, match=r"another process .* has died .* start the same command again"):
        World(rank=0, size=2).barrier()
    with pytest.raises(RuntimeError, match="shapes"), World(rank=0, size=2):
        raise RuntimeError("shapes do not match")


def test_shares_are_neighbours_cover_everything_and_differ_by_one_at_most() -> None:
    work = list(range(11))
    shares = [World(rank=rank, size=4).share(work) for rank in range(4)]
    assert [item for share in shares for item in share] == work
    assert {len(share) for share in shares} <= {2, 3}
