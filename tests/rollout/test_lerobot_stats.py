"""Statistics of data set columns against numpy on the raw values."""

import numpy as np

from vla.embed.datasets.lerobot.statistics import image_statistics, vector_statistics


def test_image_statistics_are_those_of_the_pixels() -> None:
    frames = np.random.default_rng(0).integers(10, 200, (4, 7, 5, 3), dtype=np.uint8)
    histogram = np.stack([np.bincount(frames[..., c].ravel(), minlength=256) for c in range(3)])
    found = image_statistics(histogram, frames=4)
    pixels = frames.reshape(-1, 3) / 255
    for name, expected in [
        ("min", pixels.min(axis=0)),
        ("max", pixels.max(axis=0)),
        ("mean", pixels.mean(axis=0)),
        ("std", pixels.std(axis=0)),
        ("q01", np.quantile(pixels, 0.01, axis=0, method="inverted_cdf")),
        ("q50", np.quantile(pixels, 0.50, axis=0, method="inverted_cdf")),
        ("q99", np.quantile(pixels, 0.99, axis=0, method="inverted_cdf")),
    ]:
        np.testing.assert_allclose(found[name], expected.reshape(3, 1, 1), err_msg=name)
    assert found["count"] == [4]


def test_vector_statistics_describe_each_dimension() -> None:
    found = vector_statistics(np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]]))
    assert (found["min"], found["max"], found["mean"]) == ([0, 5], [2, 5], [1, 5])
    assert (found["q10"], found["q50"], found["count"]) == ([0.2, 5], [1, 5], [3])
