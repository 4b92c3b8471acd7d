"""Configuration of stage one: tables `[dataset]` and `[encoder]`."""

from typing import Annotated, Literal

from pydantic import Field

from vla.cache.metadata import Pooling
from vla.compiling import Compile
from vla.strict import StrictModel


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


class EncoderConfig(StrictModel):
    """The frozen vision encoder."""

    id: str = "google/siglip2-base-patch16-256"
    """Hub id, local directory, or the name of an encoder that comes with vla."""
    revision: str = "main"
    """Branch, tag or commit on the Hub; meaningless for directories."""
    device: str = "auto"
    """auto, cuda, cuda:1, mps, cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto is bfloat16 on a GPU, float32 on a CPU."""
    pool: Pooling = "pooled"
    """What is kept of a view: pooled, mean, grid2, grid4 or patches; see `EncoderIdentity.pooling`."""
    batch_size: Annotated[int, Field(ge=0)] = 0
    """Images a forward pass; 0 is 8 on a CPU, 16 for small towers; on a GPU it is measured
    for large datasets, else 512."""
    compile: Compile = "off"
    """off, on (torch.compile) or graphs (CUDA graphs too, in rollouts); see `vla.compiling`."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Threads that decode images, besides one for each camera with videos; 0 chooses by cores."""
    language: bool = False
    """Encode the task texts too, once each, with the text tower of the same checkpoint."""
