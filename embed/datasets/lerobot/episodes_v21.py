"""The layout of LeRobotDataset v2.1, and of v2.0, which differs in statistics only: a file an episode.

meta/info.json                                     features, fps, path templates
meta/episodes.jsonl                                one line an episode: length, tasks
data/chunk-000/episode_000000.parquet              one row a frame, images as encoded bytes
videos/chunk-000/<key>/episode_000000.mp4          from 0 s
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from vla.embed.datasets.folder import DatasetFolder, fill_template
from vla.embed.datasets.lerobot.info import LeRobotInfo
from vla.embed.datasets.lerobot.json_lines import read_json_lines, validated
from vla.embed.datasets.lerobot.tables import EpisodeFiles, Rows
from vla.embed.datasets.lerobot.tasks import task_list
from vla.embed.datasets.video import VideoSpan

EPISODES = "meta/episodes.jsonl"


class Line(BaseModel):
    """One line of `episodes.jsonl`."""

    episode_index: Annotated[int, Field(ge=0, strict=True)]
    length: Annotated[int, Field(ge=0, strict=True)]
    tasks: Annotated[tuple[str, ...], BeforeValidator(task_list)] = ()


def read_episodes(folder: DatasetFolder, info: LeRobotInfo, video_keys: Sequence[str]) -> list[EpisodeFiles]:
    """Read `meta/episodes.jsonl`.

    Args:
        folder: the dataset.
        info: its `info.json`.
        video_keys: features whose videos are wanted.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    lines = sorted(_read_lines(folder), key=lambda line: line.episode_index)
    return [_locate(folder, info, line, video_keys) for line in lines]


def _locate(folder: DatasetFolder, info: LeRobotInfo, line: Line, video_keys: Sequence[str]) -> EpisodeFiles:
    fields = {
        "episode_chunk": line.episode_index // info.chunks_size,
        "episode_index": line.episode_index,
    }
    videos = {key: VideoSpan(info.video_file(folder.name, key, **fields), 0.0) for key in video_keys}
    return EpisodeFiles(
        index=line.episode_index,
        length=line.length,
        tasks=line.tasks,
        rows=Rows(fill_template(info.data_path, fields), None, 0, line.length),
        videos=videos,
    )


def _read_lines(folder: DatasetFolder) -> list[Line]:
    path = folder.file(EPISODES)
    return [validated(path, place, Line, value) for place, value in read_json_lines(folder, EPISODES)]
