"""Formats that vla knows by sight and does not read: each is named, with the way to one that it reads."""

from pathlib import Path

SCRIPT = "write its episodes with lerobot (LeRobotDataset.create, add_frame, save_episode)"
FOREIGN = (
    (
        "an RLDS dataset (TensorFlow Datasets)",
        ("features.json", "*.tfrecord*", "*/features.json", "*/*.tfrecord*", "*/*/features.json"),
        "convert it to LeRobot: openx2lerobot of github.com/Tavish9/any4lerobot",
    ),
    ("an MCAP recording", ("*.mcap", "*/*.mcap"), f"read its topics with the package mcap, and {SCRIPT}"),
    ("a ROS bag", ("*.bag", "*.db3", "*/*.db3"), f"read its topics with the package rosbags, and {SCRIPT}"),
    ("a Minari dataset", ("data/main_data.hdf5", "main_data.hdf5"), f"open it with minari, and {SCRIPT}"),
    (
        "a LeRobotDataset of version 1",
        ("meta_data/info.json", "meta_data/*.safetensors"),
        "convert it with convert_dataset_v1_to_v2.py of lerobot 0.3 (lerobot/datasets/v2)",
    ),
    (
        "a LeRobotDataset in Lance tables",
        ("*.lance", "data/*.lance"),
        "take the dataset in parquet and mp4 that it was converted from",
    ),
)
"""What it is, patterns of the names by which it is known, and what to do."""


def foreign_format(path: Path) -> str | None:
    """Name the format of a folder or file that vla does not read, and what to do; None if it is not known.

    >>> foreign_format(Path("session.mcap"))[:17]
    'an MCAP recording'
    """
    for what, patterns, advice in FOREIGN:
        if any(_fits(path, pattern) for pattern in patterns):
            return f"{what}, which vla does not read; {advice}"
    return None


def _fits(path: Path, pattern: str) -> bool:
    if not path.is_dir():
        return "/" not in pattern and path.match(pattern)
    return any(not found.name.startswith(".") for found in path.glob(pattern))
