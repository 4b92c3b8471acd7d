"""The layout of LeRobotDataset v2.1, and of v2.0, which differs in statistics only: a file an episode.

meta/info.json                                     features, fps, path templates
meta/episodes.jsonl                                one line an episode: length, tasks
data/chunk-000/episode_000000.parquet              one row a frame, images as encoded bytes
videos/chunk-000/<key>/episode_000000.mp4          from 0 s
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vla.base.errors import DatasetError
from vla.embed.datasets.folder import DatasetFolder, fill_template
from vla.embed.datasets.lerobot.info import LeRobotInfo, one_line
from vla.embed.datasets.lerobot.tables import EpisodeFiles, Rows
from vla.embed.datasets.video import VideoSpan

EPISODES = "meta/episodes.jsonl"
MAX_LINE_BYTES = 1 << 20


class Line(BaseModel):
    """One line of `episodes.jsonl`."""

    model_config = ConfigDict(strict=True)
    episode_index: Annotated[int, Field(ge=0)]
    length: Annotated[int, Field(ge=1)]
    tasks: list[str]


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
        task="; ".join(line.tasks),
        rows=Rows((fill_template(info.data_path, fields),), "frame_index", 0, line.length),
        videos=videos,
    )


def _read_lines(folder: DatasetFolder) -> list[Line]:
    path = folder.file(EPISODES)
    lines = []
    try:
        with path.open("rb") as file:
            number = 0
            while text := file.readline(MAX_LINE_BYTES):
                number += 1
                if text.strip():
                    lines.append(Line.model_validate_json(text))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    except ValidationError as error:
        raise DatasetError(f"{path}, line {number}: {one_line(error, Line)}") from error
    return lines
