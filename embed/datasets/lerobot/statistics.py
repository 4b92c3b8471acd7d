"""Statistics of data set columns, under LeRobot's names: min max mean std q01 q10 q50 q90 q99 count.

They are exact. Those of images come from histograms, so no pixel needs to be kept or sampled.
"""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

Statistics = dict[str, Any]
"""Nested lists by name."""


def vector_statistics(values: Float64[np.ndarray, "frames ..."]) -> Statistics:
    """Describe each number of a frame over all frames, in the shape that it has."""
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0).tolist(),
        "count": [len(values)],
        **{name: row.tolist() for name, row in zip(QUANTILES, quantiles, strict=True)},
    }


def image_statistics(histogram: Int64[np.ndarray, "3 256"], frames: int) -> Statistics:
    """Describe each channel over all pixels, in [0, 1] and of shape (3, 1, 1), as LeRobot has them.

    Args:
        histogram: how many pixels of each channel have each value.
        frames: how many images were counted.
    """
    levels = np.arange(256) / 255
    weights = histogram / histogram.sum(axis=1, keepdims=True)
    mean = weights @ levels
    variance = (weights * (levels - mean[:, None]) ** 2).sum(axis=1)
    share_up_to = weights.cumsum(axis=1)
    present = histogram > 0
    columns = {
        "min": levels[present.argmax(axis=1)],
        "max": levels[255 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt(variance),
        # The smallest value that at least this share of the pixels does not exceed.
        **{name: levels[(share_up_to >= q - 1e-12).argmax(axis=1)] for name, q in QUANTILES.items()},
    }
    return {"count": [frames], **{name: value.reshape(3, 1, 1).tolist() for name, value in columns.items()}}
