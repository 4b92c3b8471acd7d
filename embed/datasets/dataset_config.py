"""Which demonstrations to read, and how: table `[dataset]`."""

from typing import Annotated, Literal

from pydantic import Field

from vla.base.strict import StrictModel


class DatasetConfig(StrictModel):
    """The demonstrations; which formats there are is in docs/datasets.md."""

    path: str = "data/sim_transfer"
    """A LeRobotDataset, a folder of HDF5 episodes, or `owner/name` of a dataset on the Hub."""
    revision: str | None = None
    """Branch, tag or commit on the Hub. Without one the Hub is never asked; meaningless for directories."""
    cameras: tuple[str, ...] = ()
    """Cameras to embed, in this order; empty takes all, in the dataset's order."""
    state_key: str = ""
    """Empty takes the format's own: `observation.state`, in HDF5 `observations/qpos`."""
    action_key: str = ""
    """Empty takes `action`."""
    episodes: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Episodes to take, by the dataset's own numbers and in its order; empty takes all."""
    fps: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Frames a second. HDF5 episodes do not say; where the dataset does, it must agree."""
    tolerance_s: Annotated[float, Field(gt=0)] = 1e-4
    """How far timestamps and video frames may lie from frame number / fps [s]; LeRobot's default."""
    color: Literal["rgb", "bgr"] = "rgb"
    """Order of the colours in HDF5 images. OpenCV swaps them where it is handed RGB; look at a frame."""
