"""Which frozen encoder, and how it runs: table `[encoder]`."""

from typing import Annotated, Literal

from pydantic import Field

from vla.base.compiling import Compile
from vla.base.strict import StrictModel
from vla.cache.metadata import Pooling


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
    """off, on (torch.compile) or graphs (CUDA graphs too, in rollouts); see `vla.base.compiling`."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Threads that decode images, besides one for each camera with videos; 0 chooses by cores."""
    language: bool = False
    """Encode the task texts too, once each, with the text tower of the same checkpoint."""
