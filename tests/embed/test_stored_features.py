"""Features of the encoder that comes with vla, held to a stored sample: the same on every processor."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from vla.embed import FrozenEncoder, SiglipConfig

SAMPLE = Path(__file__).parent / "data" / "siglip2-tiny-sim.safetensors"
"""float16 [3, tokens, 128] by pooling, written by the version of 26 November 2026 (0.1.0) on an x86 CPU."""
ROUNDING = 2**-9
"""Two units in the last place of float16; other processors sum in another order."""


def images(height: int = 256, width: int = 256) -> np.ndarray:
    """Three images of waves and edges, in integers: the same bytes everywhere."""
    y, x = np.mgrid[:height, :width]
    red = (3 * x + 5 * y) % 256
    green = (x * y // 64) % 256
    blue = 255 * ((x // 32 + y // 48) % 2)
    first = np.stack([red, green, blue], axis=-1).astype(np.uint8)
    return np.stack([first, first[::-1, :, ::-1], 255 - first])


@pytest.mark.parametrize("pool", ["pooled", "grid2"])
def test_features_are_those_that_were_stored(pool: str) -> None:
    config = SiglipConfig.model_validate({"id": "siglip2-tiny-sim", "device": "cpu", "pool": pool})
    found = FrozenEncoder.load(config, ("top",)).encode({"top": images()})["top"].float().numpy()
    stored = load_file(SAMPLE)[pool].astype(np.float32)
    scale = np.sqrt(np.mean(stored**2))
    np.testing.assert_allclose(found, stored, rtol=ROUNDING, atol=ROUNDING * scale)
