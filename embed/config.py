"""Configuration of stage one: tables `[dataset]` and `[encoder]`."""

from typing import Annotated, Literal

from pydantic import Field

from vla.strict import StrictModel


class DatasetConfig(StrictModel):
    """The demonstrations."""

    path: str = "data/sim_transfer"
    """Directory of a LeRobotDataset v3.0."""
    cameras: tuple[str, ...] = ()
    """Cameras to embed, in this order; empty takes all, in the dataset's order."""
    state_key: str = "observation.state"
    action_key: str = "action"


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
    batch_size: Annotated[int, Field(ge=0)] = 0
    """Images a forward pass; 0 chooses by device."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Threads that decode frames; 0 chooses by cores."""
