"""Read folders of HDF5 episodes, `episode_0.hdf5` and so on, as ACT, ALOHA and RoboIMI write them."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from vla.base.errors import DatasetError
from vla.cache.metadata import DatasetIdentity, Episode
from vla.embed.datasets.content import content_sha256
from vla.embed.datasets.dataset_config import DatasetConfig
from vla.embed.datasets.episodes import Span, choose_episodes, locate, number_through
from vla.embed.datasets.folder import DatasetFolder
from vla.embed.datasets.hdf5.episode_file import HDF5_ERRORS, Hdf5Episode, Hdf5Layout
from vla.embed.datasets.images import stack
from vla.embed.datasets.source import FrameBlock, FrameSource
from vla.embed.datasets.watch import FileWatch

NAME = re.compile(r"episode_?(\d{1,9})\.(hdf5|h5)", re.ASCII)


def episode_files(folder: DatasetFolder) -> dict[int, str]:
    """Return the episode files of a folder by number, in numerical order.

    Raises:
        DatasetError: two files have the same number.
    """
    found: dict[int, str] = {}
    for path in sorted(folder.root.iterdir()):
        match = NAME.fullmatch(path.name)
        if match is None:
            continue
        number = int(match[1])
        if number in found:
            names = f"{found[number]} and {path.name}"
            raise DatasetError(f"{folder.name}: {names} are the same episode; remove one")
        found[number] = path.name
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class _Entry:
    index: int
    file: str
    layout: Hdf5Layout


class Hdf5Source(FrameSource):
    """A folder of HDF5 episodes.

    Args:
        folder: the directory.
        config: cameras, keys, episodes, frames a second and order of colours.
        workers: threads that decode.

    Raises:
        DatasetError: no frames a second are given, or an episode, camera or key is not there.
    """

    def __init__(self, folder: DatasetFolder, config: DatasetConfig, workers: int) -> None:
        if config.fps is None:
            raise DatasetError(
                f"{folder.name} holds HDF5 episodes, which do not say how many frames a second they have; "
                "add it, such as ALOHA's: --set dataset.fps=50"
            )
        self._folder, self._config, self._workers, self._fps = folder, config, workers, config.fps
        self.state_key = config.state_key or "observations/qpos"
        self.action_key = config.action_key or "action"
        self._files = episode_files(folder)
        numbers = choose_episodes(folder.name, self._files, config.episodes)
        self._layout = self._open(numbers[0], config.cameras)
        self._entries = [self._entry(number) for number in numbers]

    @property
    def format(self) -> str:
        return "hdf5-act"

    @property
    def fps(self) -> float:
        return self._fps

    @property
    def camera_names(self) -> tuple[str, ...]:
        return self._layout.cameras

    @property
    def state_dim(self) -> int:
        return self._layout.state_dim

    @property
    def action_dim(self) -> int:
        return self._layout.action_dim

    @cached_property
    def episodes(self) -> tuple[Episode, ...]:
        return number_through(
            self._folder.name, ((e.index, e.layout.length, e.layout.task) for e in self._entries)
        )

    def files(self) -> list[str]:
        return sorted(entry.file for entry in self._entries)

    def watch(self) -> FileWatch:
        return FileWatch(self._folder.name, self._folder.root, self.files())

    def identity(self) -> DatasetIdentity:
        chosen = tuple(entry.index for entry in self._entries)
        return DatasetIdentity(
            path=self._folder.name,
            format=self.format,
            # Both stand for what an episode does not say of itself.
            content_sha256=content_sha256(
                self._folder, self.files(), [f"fps {self._fps!r}", f"color {self._config.color}"]
            ),
            episodes=None if len(chosen) == len(self._files) else chosen,
            fps=self._fps,
            state_key=self.state_key,
            action_key=self.action_key,
        )

    def read(self, frames: range, block: int) -> Iterator[FrameBlock]:
        opened: Hdf5Episode | None = None
        try:
            with ThreadPoolExecutor(self._workers) as pool:
                for start in range(frames.start, frames.stop, block):
                    parts = []
                    for span in locate(self.episodes, range(start, min(start + block, frames.stop))):
                        path = self._folder.file(self._entries[span.position].file)
                        if opened is None or opened.path != path:
                            if opened is not None:
                                opened.close()
                            opened = Hdf5Episode(path)
                        parts.append(self._read_span(opened, span, pool))
                    yield self._join(parts)
        finally:
            if opened is not None:
                opened.close()

    def _open(self, number: int, cameras: tuple[str, ...]) -> Hdf5Layout:
        path = self._folder.file(self._files[number])
        try:
            with Hdf5Episode(path) as episode:
                return episode.layout(cameras, self.state_key, self.action_key)
        except HDF5_ERRORS as error:
            raise DatasetError(f"{path} is damaged ({error})") from error

    def _entry(self, number: int) -> _Entry:
        layout = self._open(number, self._layout.cameras)
        for what in ("state_dim", "action_dim"):
            found, expected = getattr(layout, what), getattr(self._layout, what)
            if found != expected:
                raise DatasetError(
                    f"{self._folder.name}: {self._files[number]} has {what} {found}, the first one {expected}"
                )
        return _Entry(number, self._files[number], layout)

    def _read_span(self, episode: Hdf5Episode, span: Span, pool: ThreadPoolExecutor) -> FrameBlock:
        frames = range(span.start, span.stop)
        index = self._entries[span.position].index

        def where(camera: str, row: int) -> str:
            return f"{self._folder.name}: camera '{camera}' at episode {index}, frame {frames[row]}"

        return FrameBlock(
            images={
                camera: stack(
                    episode.images(camera, frames, self._config.color, pool),
                    len(frames),
                    partial(where, camera),
                )
                for camera in self.camera_names
            },
            state=episode.vectors(self.state_key, frames),
            action=episode.vectors(self.action_key, frames),
            episode_index=np.full(len(frames), index, np.int32),
            frame_index=np.arange(span.start, span.stop, dtype=np.int32),
        )

    def _join(self, parts: list[FrameBlock]) -> FrameBlock:
        for camera in self.camera_names:
            sizes = {part.images[camera].shape[1:] for part in parts}
            if len(sizes) > 1:
                raise DatasetError(
                    f"{self._folder.name}: camera '{camera}' changes its size from episode "
                    f"{parts[0].episode_index[0]} to {parts[-1].episode_index[0]}"
                )
        return FrameBlock(
            images={c: np.concatenate([part.images[c] for part in parts]) for c in self.camera_names},
            state=np.concatenate([part.state for part in parts]),
            action=np.concatenate([part.action for part in parts]),
            episode_index=np.concatenate([part.episode_index for part in parts]),
            frame_index=np.concatenate([part.frame_index for part in parts]),
        )
